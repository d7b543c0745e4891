"""A job in shards from beginning to end: what is done stays done, the rest is made by an engine, with a bar."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from components.registry import Part
from datamodules.engines.base import Clock, Engine, Work


def make_all(work: Work, engine: Engine, title: str) -> Clock:
    """Makes the shards that are not there yet; -> the seconds that this call spent in each stage, summed over processes.

    May be killed at any moment and called again, with any engine: the files end the same.
    """
    sizes = [work.images(shard) for shard in range(len(work))]
    look = tqdm(range(len(work)), unit="shard", desc="looking for what is made", leave=False, delay=2)
    todo = [shard for shard in look if not work.is_done(shard)]
    spent: Counter[str] = Counter()
    if todo:
        there = sum(sizes) - sum(sizes[shard] for shard in todo)
        with tqdm(total=sum(sizes), initial=there, unit="image", desc=title) as bar:
            for shard, made in engine.run(work, todo):
                for skip in made.skipped:
                    bar.write(f"skipped {skip['name']} ({skip['images']} images): {skip['why']}")
                spent.update(made.seconds)
                bar.update(sizes[shard])
    return Clock(spent)


def identity(part: Part[Any]) -> dict[str, Any]:
    """The plugin with all its options, the hashes of the files they name, and, where it has them, version and licence."""
    settings = part.settings()
    files = {k: v for k, v in settings.items() if isinstance(v, str) and v and Path(v).is_file()}
    hashes = {f"{k} (sha256)": file_hash(Path(v))[:16] for k, v in files.items()}
    said = {k: getattr(part.cls, k) for k in ("version", "licence") if hasattr(part.cls, k)}
    return {**settings, **hashes, **said}


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """The file is whole or it is not there; its folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")  # pids repeat between containers
    try:
        draft.write_bytes(content)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Atomically, keys in the order given, no number that is none."""
    write_atomically(path, (json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode())
