"""Where a label file holds something else than its first records led to expect: looked for once the engine that reads it has refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from datamodules.json_chunks import Chunk, Form, parsed
from datamodules.label_mapping import KEY, POSITION, REGION_TYPES, SELF, at_path

_SHOWN = 60  # characters of a value
_EXPECTED = {"DOUBLE": "a number", "INTEGER[]": "a list of two numbers"}


def explain(path: Path, chunk: Chunk, form: Form, named: bool, mapping: Mapping[str, Any], where: str, told: str) -> str:
    """What a user is told of a chunk that cannot be read: the key of the mapping, the image, the value and what to do.

    Args:
        named: whether a record's regions are a mapping of names to regions; else they are a list.
        mapping: of the label file, `where` of which is "masks" or "scores".
        told: what the engine says, which stands for it where nothing is found here.

    Raises:
        ValueError: the chunk is no JSON.
    """
    place = f"{path}, between byte {chunk.start:,} and {chunk.end:,}"
    for record in parsed(path, chunk):
        name, value = (record["key"], record["value"]) if form == "mapping" else (None, record)
        if mapping["image"] != KEY:
            name = at_path(value, mapping["image"])
        found = next(_misfits(value, named, mapping), None)
        if found is not None:
            key, got, expected = found
            stands = "" if mapping[key] in (SELF, KEY, POSITION) else f" '{mapping[key]}'"
            return (
                f"{place}: {where}.{key}{stands} of the image {name!r} is {_brief(got)}, where {expected} is expected: correct it in the "
                f"file (null where it is unknown), or name another key in a mapping (--mapping)"
            )
    return f"{place}: {told.splitlines()[0]}: check the label file, and {where}.name in the mapping"


def _misfits(record: Any, named: bool, mapping: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """Keys of the mapping, values and what is expected in their place. What is null, or is not there, is unknown, and fits."""
    if mapping["regions"] != SELF and not isinstance(record, dict | None):
        yield "regions", record, "a mapping that holds it"
        return
    regions = record if mapping["regions"] == SELF else at_path(record, mapping["regions"])
    if not isinstance(regions, (dict if named else list) | None):
        yield "regions", regions, f"a {'mapping of names to' if named else 'list of'} regions, as in the first records,"
        return
    for region in regions.values() if isinstance(regions, dict) else regions or ():
        for key, kind in REGION_TYPES.items():
            if not mapping.get(key) or mapping[key] in (POSITION, KEY):
                continue
            holder, last = region, mapping[key].split(".")[-1]
            for step in mapping[key].split(".")[:-1]:
                holder = holder.get(step) if isinstance(holder, dict) else holder
            value = holder.get(last) if isinstance(holder, dict) else holder
            if not isinstance(holder, dict | None):
                yield key, holder, f"a mapping with '{last}'"
            elif not _fits(value, kind):
                yield key, value, _EXPECTED[kind]


def _fits(value: Any, kind: str) -> bool:
    if value is None or kind == "VARCHAR":
        return True
    if kind == "INTEGER[]":
        return isinstance(value, list) and all(_fits(v, "DOUBLE") for v in value)
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
