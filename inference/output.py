"""Rows as a table to read, and as files: JSONL, CSV or Parquet, whole or not there, and continued after a kill."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.batch import RoiScore, Task
from components.registry import ConfigError
from inference.predict import Row

SCORES = ("quality", "importance")
SUFFIXES = (".jsonl", ".csv", ".parquet")


def check_free(path: Path, overwrite: bool) -> None:
    """Raises FileExistsError where something would be overwritten that need not be, or no file can be."""
    check_place(path)
    if path.is_dir():
        raise FileExistsError(f"{path} is a folder, and the name of a file is wanted: choose another name")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} is there already: choose another name, or replace it with --overwrite")


def check_place(path: Path) -> None:
    """Raises FileExistsError where `path` lies below something that is no folder, which would be found only when it is written."""
    above = next(p for p in path.absolute().parents if p.exists())
    if not above.is_dir():
        raise FileExistsError(f"{path} would lie in {above}, which is a file: choose another place")


class Output:
    """The file of a prediction. What has been scored goes into a draft beside it, image by image; when all is done the file is written at
    once and the draft removed. A prediction that was killed finds its draft and goes on after the last whole image.

    Args:
        path: ends in .jsonl, .csv or .parquet.
        tasks: columns of a table.
        identity: what must be equal for a draft to be continued: model, requests, options.
        continued: look for a draft; False only checks the path.

    Raises:
        ConfigError: another ending. FileExistsError: `path` is there and `overwrite` is not given, or it cannot be a file.
    """

    def __init__(
        self, path: Path, tasks: Sequence[Task], identity: Mapping[str, Any], overwrite: bool = False, continued: bool = True
    ) -> None:
        if path.suffix.lower() not in SUFFIXES:
            raise ConfigError(f"--out {path}: its ending says the form, one of {', '.join(SUFFIXES)}")
        check_free(path, overwrite)
        self.path, self.tasks, self._overwrite = path, tuple(tasks), overwrite
        self.draft = path.with_name(f".{path.name}.draft")
        self._key = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()
        self._done = self._continued() if continued else []

    @property
    def done(self) -> int:
        """Images that an earlier, killed prediction has scored already."""
        return len(self._done)

    @property
    def lines(self) -> list[dict[str, Any]]:
        """All rows so far, those of an earlier prediction first, as lines of JSON."""
        return [line for entry in self._done for line in entry["lines"]]

    def add(self, rows: Sequence[Row]) -> None:
        """Keeps the rows of the next image, on the disk."""
        entry = {"lines": [row.nested() for row in rows], "cells": [row.flat(self.tasks) for row in rows]}
        if not self.draft.exists():
            self.draft.parent.mkdir(parents=True, exist_ok=True)
            self.draft.write_text(json.dumps({"identity": self._key}) + "\n")
        with self.draft.open("a") as file:
            file.write(json.dumps(entry) + "\n")
        self._done.append(entry)

    def finish(self) -> int:
        """Writes the file, removes the draft; returns the number of rows."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        whole = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        whole.write_bytes(self._encoded())
        whole.replace(self.path)
        self.draft.unlink(missing_ok=True)
        return len(self.lines)

    def _encoded(self) -> bytes:
        form = self.path.suffix.lower()
        if form == ".jsonl":
            return "".join(json.dumps(line) + "\n" for line in self.lines).encode()
        columns = list(Row("", "", "").flat(self.tasks))
        cells = [row for entry in self._done for row in entry["cells"]]
        if form == ".parquet":
            return _parquet(cells, columns)
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(cells)
        return buffer.getvalue().encode()

    def _continued(self) -> list[dict[str, Any]]:
        if not self.draft.exists():
            return []
        lines = self.draft.read_text().splitlines(keepends=True)
        try:
            same = json.loads(lines[0])["identity"] == self._key
        except (IndexError, ValueError, KeyError, TypeError):
            same = False
        if not same and len(lines) > 1 and not self._overwrite:
            raise FileExistsError(
                f"{self.draft} holds {len(lines) - 1} images of another prediction (another model, list, image or option): "
                "delete it, choose another --out, or replace both with --overwrite"
            )
        whole, entries = [], []
        for line in lines[1:] if same else []:
            try:
                entries.append(json.loads(line))
            except json.JSONDecodeError:  # the kill cut it short
                break
            whole.append(line if line.endswith("\n") else line + "\n")
        if not whole:
            self.draft.unlink()
            return []
        fresh = self.draft.with_name(f"{self.draft.name}.{os.getpid()}")
        fresh.write_text("".join([lines[0], *whole]))
        fresh.replace(self.draft)
        return entries


def _parquet(cells: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> bytes:
    """Each column with its type, null where nothing is known; the texts of a row stay as they are."""
    kinds = {"left": pa.int64(), "top": pa.int64(), "width": pa.int64(), "height": pa.int64(), "area": pa.float64()}
    arrays = []
    for name in columns:
        task, _, what = name.rpartition("_")
        kind = kinds.get(name) or (
            pa.bool_() if what == "parsed" else pa.float64() if name in SCORES or (task in SCORES and what == "std") else pa.string()
        )
        values = [cell[name] for cell in cells]
        arrays.append(pa.array([None if v == "" and kind != pa.string() else v for v in values], kind))
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(arrays, names=list(columns)), sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def table(rows: Sequence[Row], tasks: Sequence[Task]) -> str:
    """Rows for the console, one line each."""
    names = ["image", "region", *(t for t in tasks)]
    cells = [[row.image, row.region, *(_cell(row.scores.get(task)) for task in tasks)] for row in rows if not row.error]
    widths = [max(len(line[i]) for line in [names, *cells]) for i in range(len(names))]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in [names, *cells])


def _cell(score: RoiScore | None) -> str:
    if score is None:
        return ""
    if not score.parsed:
        return f"not understood: {score.text!r}"
    if score.task == "distortion":
        return ", ".join(f"{severity} {kind}" for kind, severity in score.distortions) or "none"
    spread = "" if score.std is None else f" ± {score.std:.3f}"
    return f"{score.value:.3f}{spread}"
