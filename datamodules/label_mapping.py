"""Which key of a label file means what, checked against the file's first records, as the SQL that reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from numpy.typing import NDArray

from components.registry import ConfigError, check_keys
from datamodules.json_chunks import LARGEST, Form, chunks, form_of, parsed
from datamodules.records import Scale

DEFAULT = Path(__file__).with_name("seagull_100w.yaml")
SOME, FIRST = 2**16, 2**20  # bytes of records in which the keys are looked for, and in which they are where those lack one
KEY, SELF, POSITION = "$key", "$self", "$position"
REGION_TYPES = {  # what is known of a region -> its type
    "region": "VARCHAR",
    "size": "INTEGER[]",
    "counts": "VARCHAR",
    "semantic": "VARCHAR",
    "description": "VARCHAR",
    "quality": "DOUBLE",
    "quality_std": "DOUBLE",
    "importance": "DOUBLE",
    "importance_std": "DOUBLE",
}


def load_mapping(path: Path | None) -> dict[str, Any]:
    """The default mapping, with the lines of `path` in place of its own.

    Raises:
        ConfigError: no mapping, or an unknown key.
    """
    mapping: dict[str, Any] = yaml.safe_load(DEFAULT.read_text(encoding="utf-8"))
    given = {} if path is None else yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(given, dict):
        raise ConfigError(f"{path} must hold a mapping like {DEFAULT.name}, got {type(given).__name__}")
    check_keys(given, list(mapping), str(path))
    for key, value in given.items():
        if not isinstance(mapping[key], dict) or key == "types":
            mapping[key] = value
            continue
        if not isinstance(value, dict):
            raise ConfigError(f"{path}: {key} is a mapping with the keys {', '.join(mapping[key])}, got {value!r}")
        check_keys(value, list(mapping[key]), f"{path}: {key}")
        for name, inner in value.items():
            mapping[key][name] = {**mapping[key][name], **inner} if isinstance(inner, dict) else inner
    sides = mapping["masks"]["sides"]
    if not isinstance(sides, list) or sorted(map(str, sides)) != ["height", "width"]:
        raise ConfigError(f"masks.sides: [height, width] or [width, height], got {sides!r}")
    if mapping["severity"] not in ("quality", "unknown"):
        raise ConfigError(f"severity: 'quality' or 'unknown', got {mapping['severity']!r}")
    for scale in mapping["scales"].values():
        Scale(**scale)
    return mapping


@dataclass(frozen=True)
class Reader:
    """How one label file is read.

    Attributes:
        path: the file. at: the keys below which its records stand. start: the byte at which they begin. form: what they stand in.
        columns: what `regions` gives of each region.
        named: whether a record's regions are a mapping of names to regions; else they are a list.
    """

    path: Path
    at: str
    start: int
    form: Form
    columns: tuple[str, ...]
    named: bool
    _type: str
    _image: str
    _regions: str
    _paths: Mapping[str, str]

    def select(self, chunk: Path, of_image: str) -> str:
        """The query that reads a chunk's file: a row for each image, with `image`, `listed` (its regions, for `regions`; null where the
        record does not say which there are), and what is made of these.

        Args:
            of_image: expressions of `image` and `listed`, with names.
        """
        listed = "CASE WHEN regions IS NOT NULL THEN map_entries(regions) END" if self.named else "regions"
        records = (
            f"SELECT {self._image} AS image, {self._regions} AS regions "
            f"FROM read_json('{_quoted(str(chunk))}', format='array', records='false', maximum_object_size={LARGEST}, "
            f"columns={{json: '{self._type}'}})"
        )
        return f"SELECT *, {of_image} FROM (SELECT image, {listed} AS listed FROM ({records}))"

    def regions(self, listed: pa.ListArray) -> pa.Table:
        """Lists of regions as `select` gives them -> a row for each region, one list after the other: the columns."""
        found = listed.flatten()
        columns = {}
        for name, path in self._paths.items():
            if path == POSITION:
                columns[name] = pa.array(positions(listed)).cast(pa.string())
                continue
            column = found
            for key in ("key",) if path == KEY else (*(("value",) if self.named else ()), *path.split(".")):
                column = pc.struct_field(column, [column.type.get_field_index(key)])
            columns[name] = column
        return pa.table(columns)


def lengths(listed: pa.ListArray) -> NDArray[np.int64]:
    """(N,) how many regions each list holds; 0 where there is none."""
    return np.asarray(pc.list_value_length(listed).fill_null(0).to_numpy(), np.int64)


def positions(listed: pa.ListArray) -> NDArray[np.int64]:
    """(M,) of each region its place in its list, from 1 on."""
    held = lengths(listed)
    return np.arange(1, held.sum() + 1) - np.repeat(np.cumsum(held) - held, held)


def reader(folder: Path, mapping: Mapping[str, Any], where: str) -> Reader:
    """Of `mapping`, one of "masks" and "scores" (`where`).

    Raises:
        FileNotFoundError: the label file is not there.
        ConfigError: none of its first records and of their regions has such a key: the message shows what one has.
        ValueError: it is no list or mapping of records.
    """
    path = folder / mapping["file"]
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: fetch it, or name it in a mapping ({where}.file)")
    at = str(mapping.get("at") or "")
    form, start = form_of(path, at)
    wanted = {k: str(mapping[k]) for k in REGION_TYPES if mapping.get(k)}
    for size in (min(SOME, FIRST), FIRST):
        records = _first(path, at, form, start, mapping["regions"], size)
        name, record = next((r for r in records if _regions(r[1], mapping["regions"])), records[0])
        regions = _regions(record, mapping["regions"])
        missing = [f"{where}.{key}: no '{p}'" for key, p in _absent(mapping, wanted, form, records, record)]
        if not missing:
            break
    if missing:
        raise ConfigError(
            f"{path} is not laid out as the mapping says ({'; '.join(missing)}). It is a {form} of records, one of which"
            + (f", named {name!r}," if form == "mapping" else "")
            + f" is\n{shape(record)}\nWrite what differs into a file of your own, as {DEFAULT.name} does, and give it as --mapping:\n"
            f"{where}:\n" + "\n".join(f"  {m.split(':')[0].split('.')[1]}: <path of keys>" for m in missing)
        )
    root = "json.value" if form == "mapping" else "json"
    region_type = _struct({p: REGION_TYPES[k] for k, p in wanted.items() if p not in (POSITION, KEY)})
    regions_type = f"MAP(VARCHAR, {region_type})" if isinstance(regions, dict) else f"{region_type}[]"
    paths = {} if mapping["image"] == KEY else {mapping["image"]: "VARCHAR"}
    record_type = regions_type if mapping["regions"] == SELF else _struct({**paths, mapping["regions"]: regions_type})
    return Reader(
        path,
        at,
        start,
        form,
        tuple(wanted),
        isinstance(regions, dict),
        (f"STRUCT(key VARCHAR, value {record_type})" if form == "mapping" else record_type).replace("'", "''"),
        "json.key" if mapping["image"] == KEY else root + _access(mapping["image"]),
        root if mapping["regions"] == SELF else root + _access(mapping["regions"]),
        wanted,
    )


def _absent(
    mapping: Mapping[str, Any], wanted: Mapping[str, str], form: Form, records: Sequence[tuple[str, Any]], record: Any
) -> list[tuple[str, str]]:
    """What the mapping names that neither `record` nor any region of `records` has, and under which key."""
    regions = _regions(record, mapping["regions"])
    found = [region for _, r in records for region in _listed(_regions(r, mapping["regions"]))]
    named = [] if mapping["image"] == KEY and form == "mapping" else [("image", [record], mapping["image"])]
    named += [("regions", [record], mapping["regions"])] if mapping["regions"] != SELF else []
    named += [(k, found, p) for k, p in wanted.items() if not (p == POSITION or (p == KEY and isinstance(regions, dict)))]
    return [(key, path) for key, holders, path in named if not any(_has(h, path) for h in holders)]


def _first(path: Path, at: str, form: Form, start: int, where: str, size: int) -> list[tuple[str, Any]]:
    """Names and values of the first records, as far as it takes to meet a region; where they have none to name, of the very first ones."""
    first: list[tuple[str, Any]] = []
    for chunk in chunks(path, start, size, at):
        records = [(r["key"], r["value"]) if form == "mapping" else (KEY, r) for r in parsed(path, chunk)]
        first = first or records
        said = [_regions(value, where) for _, value in records]
        if any(said):
            return records
        if None in said:
            break
    if not first:
        raise ConfigError(f"{path} holds no records")
    return first


def _regions(record: Any, where: str) -> Any:
    return record if where == SELF else at_path(record, where)


def _listed(regions: Any) -> list[Any]:
    return list(regions.values()) if isinstance(regions, dict) else regions if isinstance(regions, list) else []


def shape(value: Any, indent: str = "  ") -> str:
    """What a JSON value is made of: its keys, their types, and the first of each list."""
    if isinstance(value, dict):
        shown = list(value.items())[:12]
        lines = [f"{indent}{key}: {_brief(inner)}" + (f"\n{shape(inner, indent + '  ')}" if _nested(inner) else "") for key, inner in shown]
        return "\n".join([*lines, *([f"{indent}and {len(value) - len(shown)} more keys"] if len(value) > len(shown) else [])])
    if isinstance(value, list) and value:
        return f"{indent}first: {_brief(value[0])}" + (f"\n{shape(value[0], indent + '  ')}" if _nested(value[0]) else "")
    return f"{indent}{_brief(value)}"


def _nested(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], (dict, list)))


def _brief(value: Any) -> str:
    if isinstance(value, dict):
        return f"mapping of {len(value)}"
    text = json.dumps(value)
    text = text if len(text) <= 40 else f"{text[:40]}..."
    return f"list of {len(value)}, {text}" if isinstance(value, list) else f"{type(value).__name__}, {text}"


def at_path(value: Any, path: str) -> Any:
    """What stands at a path of keys; None where there is nothing."""
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _has(value: Any, path: str) -> bool:
    """Whether anything stands at a path of keys, be it null."""
    *above, last = path.split(".")
    holder = at_path(value, ".".join(above)) if above else value
    return isinstance(holder, dict) and last in holder


def _struct(paths: Mapping[str, str]) -> str:
    """Paths with types -> the type of the mapping that holds them."""
    tree: dict[str, Any] = {}
    for path, kind in paths.items():
        *above, last = path.split(".")
        node = tree
        for key in above:
            node = node.setdefault(key, {})
        node[last] = kind
    return _type_of(tree)


def _type_of(tree: Any) -> str:
    if isinstance(tree, str):
        return tree
    if not tree:
        return "JSON"
    return "STRUCT({})".format(", ".join(f"{_name(k)} {_type_of(v)}" for k, v in tree.items()))


def _access(path: str) -> str:
    return "".join(f".{_name(key)}" for key in path.split("."))


def _name(key: str) -> str:
    return '"{}"'.format(key.replace('"', '""'))


def _quoted(text: str) -> str:
    return text.replace("'", "''")
