"""Rows as a table to read, and as files: JSONL, CSV or Parquet, whole or not there, and continued after a kill."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from components.registry import ConfigError
from components.tasks import RoiScore, Task
from datamodules.alone import Held
from inference.rows import Row

SCORES = ("quality", "importance")
SUFFIXES = (".jsonl", ".csv", ".parquet")
SORTS = ("overlay", "map")  # of pictures
_FORM = 2  # of a draft; one of another form is another prediction's
_GROUP = 10_000  # rows of a Parquet file that are in memory at once


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


def draft_of(path: Path) -> Path:
    """Where what has been scored stands until `path`, a file or a folder of pictures, is finished: beside it."""
    named = path if path.name not in ("", "..") else path.resolve()
    return named.with_name(f".{named.name}.draft")


def hold(path: Path, instead: str) -> Held:
    """The lock of the draft of `path`, and of a folder of pictures. Raises FileExistsError as `Held` does."""
    return Held(draft_of(path).with_suffix(".lock"), path, instead)


class Output:
    """The file of a prediction. What has been scored goes into a draft beside it, image by image; when all is done the file is written
    from it and the draft removed. A prediction that was killed finds its draft and goes on after the last whole image. Of the rows
    only numbers are kept in memory. From its making to `finish`, `close` or the end of a `with`, no other prediction can have the draft.

    Args:
        path: ends in .jsonl, .csv or .parquet; or a folder of pictures, beside which a draft alone is kept.
        tasks: columns of a table.
        identity: what must be equal for a draft to be continued: model, requests, options.
        continued: look for a draft; False only checks the path.
        pictures: `path` is a folder of pictures.

    Attributes:
        done: images in the draft, those that an earlier, killed prediction has scored already among them.
        begun: there is a draft of this very prediction, of no image perhaps.
        rows: their rows. failed: how many of them have no scores. first_error: why the first of these has none.
        drawn: sort of picture -> images that have one. undrawn: images of which a picture could not be drawn. first_undrawn: why.

    Raises:
        ConfigError: another ending. FileExistsError: `path` is there and `overwrite` is not given, it cannot be a file, or another
            prediction is writing it.
    """

    def __init__(
        self,
        path: Path,
        tasks: Sequence[Task],
        identity: Mapping[str, Any],
        overwrite: bool = False,
        continued: bool = True,
        pictures: bool = False,
    ) -> None:
        if not pictures:
            if path.suffix.lower() not in SUFFIXES:
                raise ConfigError(f"--out {path}: its ending says the form, one of {', '.join(SUFFIXES)}")
            check_free(path, overwrite)
        self.path, self.tasks, self._overwrite, self._pictures = path, tuple(tasks), overwrite, pictures
        self.draft = draft_of(path)
        self._key = hashlib.sha256(json.dumps([_FORM, identity], sort_keys=True, default=str).encode()).hexdigest()
        self.done = self.rows = self.failed = 0
        self.undrawn, self.drawn = 0, Counter[str]()
        self.first_error, self.first_undrawn, self.begun = "", "", False
        self._held: Held | None = None
        if continued:
            self._held = hold(path, "another folder" if pictures else "another --out")
            try:
                if self.draft.exists():
                    self._continue()
            except BaseException:
                self.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets another prediction have the draft."""
        if self._held is not None:
            self._held.release()

    def begin(self) -> None:
        """Writes an empty draft where there is none, by which a prediction that is killed at its first image is known again."""
        if not self.draft.exists():
            self.draft.parent.mkdir(parents=True, exist_ok=True)
            self.draft.write_text(json.dumps({"identity": self._key}) + "\n")

    def add(self, rows: Sequence[Row], drawn: Sequence[str] = (), undrawn: str = "") -> None:
        """Keeps the rows of the next image, on the disk.

        Args:
            drawn: sorts of picture that were drawn of it.
            undrawn: why a picture of it could not be drawn; "" if none failed.
        """
        as_lines = self._pictures or self.path.suffix.lower() == ".jsonl"
        told = [row.nested() if as_lines else row.flat(self.tasks) for row in rows]
        entry = {"rows": told, "drawn": list(drawn), "undrawn": undrawn}
        self.begin()
        with self.draft.open("a") as file:
            file.write(json.dumps(entry) + "\n")
        self._count(entry)

    def finish(self, images: int) -> int:
        """Writes the file, if one is wanted, removes the draft, and lets go of it; returns the number of rows.

        Args:
            images: of the whole prediction.

        Raises:
            FileExistsError: a file that came meanwhile is in the way.
            ValueError: the draft holds more or fewer images.
        """
        there = self._there()
        if not self.done == there == images:
            raise ValueError(
                f"{self.draft} holds {there} images, {self.done} were scored, and the prediction has {images}: something else changed it, "
                "so nothing was written from it; delete it and give the same line again"
            )
        if not self._pictures:
            check_free(self.path, self._overwrite)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            whole = self.path.with_name(f".{self.path.name}.{os.getpid()}")
            {".jsonl": self._write_lines, ".csv": self._write_csv, ".parquet": self._write_parquet}[self.path.suffix.lower()](whole)
            whole.replace(self.path)
        self.draft.unlink(missing_ok=True)
        self.close()
        return self.rows

    def kept(self) -> list[Row]:
        """The rows that a draft beside pictures holds, before `finish`."""
        return [Row.of(told) for entry in self._entries() for told in entry["rows"]]

    def _there(self) -> int:
        """How many images the draft holds."""
        if not self.draft.exists():
            return 0
        with self.draft.open("rb") as file:
            return sum(1 for _ in file) - 1

    def _entries(self) -> Iterator[dict[str, Any]]:
        """What the draft holds of each image, in turn."""
        if self.done:
            with self.draft.open() as file:
                next(file)
                yield from map(json.loads, file)

    def _write_lines(self, path: Path) -> None:
        with path.open("w") as file:
            file.writelines(json.dumps(line) + "\n" for entry in self._entries() for line in entry["rows"])

    def _write_csv(self, path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, self._columns, lineterminator="\n")
            writer.writeheader()
            for entry in self._entries():
                writer.writerows({name: json.dumps(v) if isinstance(v, dict) else v for name, v in row.items()} for row in entry["rows"])

    def _write_parquet(self, path: Path) -> None:
        """Each column with its type, null where nothing is known."""
        schema = pa.schema([(name, _kind(name)) for name in self._columns])
        cells = (cell for entry in self._entries() for cell in entry["rows"])
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            while group := list(islice(cells, _GROUP)):
                arrays = [pa.array([_cell_of(cell[f.name]) for cell in group], f.type) for f in schema]
                writer.write_table(pa.table(arrays, schema=schema))

    @property
    def _columns(self) -> list[str]:
        return list(Row("", "", "").flat(self.tasks))

    def _count(self, entry: Mapping[str, Any]) -> None:
        errors = [row["error"] for row in entry["rows"] if row["error"]]
        self.first_error = self.first_error or next(iter(errors), "")
        self.done, self.rows, self.failed = self.done + 1, self.rows + len(entry["rows"]), self.failed + len(errors)
        scored = len(errors) < len(entry["rows"])
        self.drawn.update(entry.get("drawn", SORTS if scored else ()))  # a draft of before told nothing of pictures
        undrawn = entry.get("undrawn", "")
        self.undrawn, self.first_undrawn = self.undrawn + bool(undrawn), self.first_undrawn or undrawn

    def _continue(self) -> None:
        """Counts what the draft holds and cuts off what is not whole, or removes it where it is of no use."""
        with self.draft.open("rb") as file:
            try:
                same = json.loads(file.readline())["identity"] == self._key
            except (ValueError, KeyError, TypeError):
                same = False
            if not same:
                others = sum(1 for _ in file)
                if others and not self._overwrite:
                    raise FileExistsError(
                        f"{self.draft} holds {others} images of another prediction (another model, list, image or option): "
                        f"delete it, choose another {'folder' if self._pictures else '--out'}, or replace both with --overwrite"
                    )
            whole = file.tell()
            while same and (line := file.readline()).endswith(b"\n"):  # the kill may have cut the last one short
                try:
                    entry = json.loads(line)
                except json.JSONDecodeError:
                    break
                self._count(entry)
                whole = file.tell()
        self.begun = same
        if self.done:
            os.truncate(self.draft, whole)
        else:
            self.draft.unlink()


def _kind(column: str) -> pa.DataType:
    task, _, what = column.rpartition("_")
    if column in ("left", "top", "width", "height", "image_height", "image_width"):
        return pa.int64()
    if what == "levels":
        return pa.map_(pa.string(), pa.float64())
    if what == "parsed":
        return pa.bool_()
    return pa.float64() if column == "area" or column in SCORES or (task in SCORES and what == "std") else pa.string()


def _cell_of(value: Any) -> Any:
    """A value as a Parquet file takes it: a map as its pairs."""
    return list(value.items()) if isinstance(value, dict) else value


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
