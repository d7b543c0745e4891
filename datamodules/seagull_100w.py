"""SEAGULL-100w as it is downloaded -> tables: archives stay packed, label files are streamed, memory does not grow with them.

Three stages, each of files that are whole or not there, so that a killed run goes on: the masks, piece by piece; the scores, piece
by piece; then the tables. Every row carries a bucket, which its reference decides, and a table is the join of one bucket's masks and
scores: both files may be in any order. The 120 versions of a reference stand together, so that a table holds a mask a few times only.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tqdm.auto import tqdm

from components import rle
from components.registry import ConfigError
from components.rle_many import measure_all
from datamodules.alone import LOCK, alone
from datamodules.archives import ARCHIVES, ImageFiles
from datamodules.json_chunks import Chunk, chunks
from datamodules.label_join import joined, once, one
from datamodules.label_mapping import Reader, lengths, positions, reader
from datamodules.label_misfits import explain
from datamodules.label_pieces import SUFFIX, read_bucket, write_piece
from datamodules.label_rows import ROWS, RowMaker, on_scale
from datamodules.records import Scale
from datamodules.tables import VERSION, RecordWriter

VERSION_OF_INDEX = 6  # changes whenever the same files would give other tables
PIECES = 3  # changes whenever what a killed run leaves could not be gone on with
CHUNK = 2**24  # bytes of a label file read at a time
BUCKET = 2**26  # bytes of the score file whose rows make a table
GROUP = 64  # images in a row group
MEMORY = "300MB"  # of the engine that parses and sorts
SCORES = ("quality", "quality_std", "importance", "importance_std")
_NEEDED = ("region", "size", "counts", "quality", "importance")
FEW = 100  # regions or images, all of which may lack a label
_MASKS_ORDER = "ORDER BY reference, position, region"
MAKER = "prepare.py index"
MANIFEST, WORK, CLAIM = "data.json", ".work", "made.json"


class Indexer:
    """One run of the index.

    Args:
        folder: the data set as downloaded.
        out: the folder of the tables.
        mapping: see `label_mapping.load_mapping`.
        shares: of references in train, val and test; there is no official split.
        seed: of the split.
        threads: of the engine.

    Raises:
        ConfigError: shares that are none; label files that are laid out otherwise than the mapping says.
        FileNotFoundError: a label file is missing.
        FileExistsError: `out` holds something else.
    """

    def __init__(
        self, folder: Path, out: Path, mapping: Mapping[str, Any], shares: tuple[float, float, float], seed: int, threads: int = 1
    ) -> None:
        if min(shares) < 0 or abs(sum(shares) - 1) > 1e-9:
            raise ConfigError(f"the shares of train, val and test are at least 0 and sum to 1, got {shares}")
        self.out, self.mapping = out, mapping
        self.readers = {where: reader(folder, mapping[where], where) for where in ("masks", "scores")}
        self.buckets = max(1, -(-self.readers["scores"].path.stat().st_size // BUCKET))
        self.made = {
            "made_by": f"{MAKER}, version {VERSION_OF_INDEX}, schema {VERSION}",
            "images": os.path.relpath(folder, out),
            "labels": {w: {"file": mapping[w]["file"], "mark": _mark(r.path)} for w, r in self.readers.items()},
            "mapping": dict(mapping),
            "shares": list(shares),
            "seed": seed,
            "quality label": "as published (TOPIQ-FR by the data set's authors)",
        }
        self.work = out / WORK
        archives = _archives(folder)
        self._begun(archives)  # so that nothing is written into a folder that is not ours
        self.lock = alone(out)
        archives = self._claim(archives)
        self.made["archives"] = archives
        self.maker = RowMaker(mapping, ImageFiles(folder), frozenset(archives), shares, seed)
        self.sql = duckdb.connect(config={"threads": threads, "memory_limit": MEMORY, "preserve_insertion_order": False})
        self.sql.execute(f"SET temp_directory = '{str(self.work / 'spill').replace(chr(39), chr(39) * 2)}'")

    def run(self) -> dict[str, Any]:
        """Makes what is not there yet. Returns what `data.json` says.

        Raises:
            ConfigError: names that the mapping's patterns do not fit, or types of distortions that are none.
            ValueError: a label file is damaged, or holds something else than its first records led to expect.
        """
        with self.lock:
            return self._run()

    def _run(self) -> dict[str, Any]:
        manifest, parts = self.out / MANIFEST, [self._part(b) for b in range(self.buckets)]
        if manifest.is_file():
            if all(p.is_file() for p in parts):
                shutil.rmtree(self.work, ignore_errors=True)
                return dict(json.loads(manifest.read_text(encoding="utf-8")))
            self.work.mkdir(exist_ok=True)  # a damaged table was deleted, as its error says
            _write_text(self.work / CLAIM, json.dumps({**self.made, "pieces": PIECES}))
            manifest.unlink()
        self._stage("masks", self._write_masks)
        self._stage("scores", self._write_scores)
        counts: Counter[str] = Counter()
        for bucket, part in enumerate(tqdm(parts, unit="table", desc="writing tables")):
            note = self.work / f"table-{bucket:05d}.json"
            if not (note.is_file() and part.is_file()):
                self._write_table(bucket, part, note)
            counts.update(json.loads(note.read_text()))
        if not counts["images"]:
            self._refuse_join()
        for name in self.readers:
            counts.update(json.loads((self.work / f"{name}.json").read_text()))
        found = {**self.made, "counts": dict(sorted(counts.items()))}
        for draft in self.out.glob(".part-*"):  # of a killed run
            draft.unlink()
        _write_text(manifest, json.dumps(found, indent=2) + "\n")
        shutil.rmtree(self.work)
        return found

    def _refuse_join(self) -> None:
        """Raises ConfigError, with a name of each file, where no score has found its mask."""
        seen = {}
        for name, source in self.readers.items():
            pieces = [piece for *_, piece in self._pieces(name, source.start)]
            rows = next((rows for b in range(self.buckets) if len(rows := read_bucket(pieces, b))), None) if pieces else None
            first = None if rows is None else rows.slice(0, 1).to_pylist()[0]
            region = first and (first["region"] if name == "masks" else first["regions"][0]["region"])
            seen[name] = "nothing" if first is None else f"the reference {first['reference']!r} and its region {region!r}"
        raise ConfigError(
            f"no score has a mask, so there is no image: {self.readers['masks'].path} names {seen['masks']}, "
            f"{self.readers['scores'].path} {seen['scores']}. Correct masks.name and scores.name, whose groups find the reference, or "
            f"masks.region and scores.region in a mapping (--mapping), and choose another folder or delete {self.out}"
        )

    def _part(self, bucket: int) -> Path:
        return self.out / f"part-{bucket:05d}-of-{self.buckets:05d}.parquet"

    def _claim(self, archives: dict[str, int]) -> dict[str, int]:
        """Makes `out` ours, or finds that it is.

        Returns:
            The archives that were there when the index began: their members get hashes, those of archives that came later get none, so
            that the tables do not depend on when each was written.
        """
        begun = self._begun(archives)
        if begun is None:
            self.work.mkdir(parents=True, exist_ok=True)
            _write_text(self.work / CLAIM, json.dumps({**self.made, "archives": archives, "pieces": PIECES}))
        return archives if begun is None else begun

    def _begun(self, archives: dict[str, int]) -> dict[str, int] | None:
        """The archives of what a run of the same files and options made or left here; None where `out` is free."""
        manifest, claim = self.out / MANIFEST, self.work / CLAIM
        there = next((p for p in (claim, manifest) if p.is_file()), None)
        if there is not None:
            theirs = json.loads(there.read_text(encoding="utf-8"))
            theirs_by = str(theirs.get("made_by", ""))
            if theirs_by.startswith(MAKER) and theirs_by != self.made["made_by"]:
                raise FileExistsError(
                    f"{self.out} holds tables by {theirs_by}; this is {self.made['made_by']}, which makes others of the same files. Delete "
                    "the folder and index again, or choose another one"
                )
            if {k: theirs.get(k) for k in self.made} != json.loads(json.dumps(self.made)):
                raise FileExistsError(f"{self.out} holds tables of other label files or options: choose another folder, or delete it")
            if there == claim and theirs.get("pieces") != PIECES:
                raise FileExistsError(
                    f"{self.out} was begun by another version of this command, whose pieces this one cannot read: delete it"
                )
            changed = [name for name, size in theirs["archives"].items() if archives.get(name) != size]
            if changed and not (there == manifest and all(self._part(b).is_file() for b in range(self.buckets))):
                raise FileExistsError(
                    f"{self.out} was begun with other archives: {changed[0]} had {theirs['archives'][changed[0]]:,} bytes, and has "
                    f"{archives.get(changed[0], 0):,} now. Put it back, or delete {self.out} and begin anew"
                )
            return dict(theirs["archives"])
        ours = {WORK, LOCK} if self.work.is_dir() and {p.name for p in self.work.iterdir()} <= {f"{claim.name}.draft"} else {LOCK}
        if self.out.exists() and {p.name for p in self.out.iterdir()} - ours:  # a run killed before its claim leaves `ours`
            raise FileExistsError(f"{self.out} is not empty, and holds no tables of this command: choose another folder")
        return None

    def _stage(self, name: str, write: Any) -> None:
        """Writes the pieces of a label file that are not there; a piece's name says which bytes it was made of."""
        done = self.work / f"{name}.json"
        if done.is_file():
            return
        source = self.readers[name]
        place, counts = source.start, Counter[str]()
        with tqdm(total=source.path.stat().st_size, initial=place, unit="B", unit_scale=True, desc=f"reading {name}") as bar:
            for piece in self._pieces(name, place):
                place = piece[1]
                counts.update(json.loads(piece[2].with_suffix(".json").read_text()))
            bar.update(place - source.start)
            for chunk in chunks(source.path, place, CHUNK, source.at):
                text = self.work / "chunk.json"
                text.write_bytes(chunk.records)
                piece_path = self.work / f"{name}-{chunk.start}-{chunk.end}{SUFFIX}"
                try:
                    counted = write(source, text, piece_path.with_suffix(".draft"))
                except (duckdb.ProgrammingError, duckdb.DataError) as error:  # of values; a full disk or memory tells of itself
                    why = explain(source.path, chunk, source.form, source.named, self.mapping[name], name, str(error))
                    raise ValueError(why) from error
                self._check_labels(name, counted, chunk)
                _write_text(piece_path.with_suffix(".json"), json.dumps(counted))
                piece_path.with_suffix(".draft").replace(piece_path)
                counts.update(counted)
                bar.update(chunk.end - place)
                place = chunk.end
        _write_text(done, json.dumps(counts))

    def _pieces(self, name: str, start: int) -> Iterator[tuple[int, int, Path]]:
        """The pieces that are there, one after the other from byte `start` on."""
        ends = {int(p.stem.split("-")[1]): int(p.stem.split("-")[2]) for p in self.work.glob(f"{name}-*{SUFFIX}")}
        while start in ends:
            yield start, ends[start], self.work / f"{name}-{start}-{ends[start]}{SUFFIX}"
            start = ends[start]

    def _write_masks(self, source: Reader, text: Path, out: Path) -> dict[str, int]:
        """A piece of the mask file; masks that are none, or cover no pixel, are left out and counted."""
        name = f"regexp_extract(image, {_literal(self.mapping['masks']['name'])}, 1) AS reference"
        images = self._table(source.select(text, f"{name}, {self._bucket('reference')}"))
        listed = one(images["listed"])
        image, found = np.repeat(np.arange(len(images)), lengths(listed)), source.regions(listed)
        odd = _first_nameless(images["image"], images["reference"], image)
        if odd:
            raise ConfigError(
                f"masks.name: {self.mapping['masks']['name']!r} finds no reference in the image {odd[0]!r}: correct it in a mapping"
            )
        given = found.slice(0, 1).to_pylist()
        if self.mapping["masks"]["sides"][0] == "width":
            found = found.set_column(found.schema.get_field_index("size"), "size", _turned(one(found["size"])))
        found = _as_texts(found)
        sides, measures = _measured(found)
        sound = np.flatnonzero(measures[:, -1] > 0)
        if len(found) and not len(sound) and self._enough("masks", len(found)):
            self._refuse_masks(source, images["image"][int(image[0])].as_py(), given[0], found.slice(0, 1).to_pylist()[0], len(found))
        kept = found.drop_columns(["size"]).take(pa.array(sound))
        for column in {"semantic", "description"} - set(source.columns):
            kept = kept.append_column(column, pa.nulls(len(kept), pa.string()))
        kept = kept.select(["region", "counts", "semantic", "description"]).append_column("position", pa.array(positions(listed)[sound]))
        numbers = np.concatenate([sides, measures], 1)[sound].astype(np.int32)
        for column, values in zip(("height", "width", "left_", "top_", "w", "h", "area"), numbers.T, strict=True):
            kept = kept.append_column(column, pa.array(np.ascontiguousarray(values)))
        kept = kept.append_column("reference", images["reference"].take(pa.array(image[sound])))
        write_piece(out, kept, _numbers(images["bucket"])[image[sound]], self.buckets)
        counts = {"masks": len(kept), "masks left out": len(found) - len(kept)}
        return {**counts, **self._unknown("masks", source, found, listed)}

    def _enough(self, name: str, count: int) -> bool:
        """Whether so many regions of a piece of which most are odd are the fault of the file, or of the mapping: not a few at its end."""
        return count >= FEW or not any(self._pieces(name, self.readers[name].start))

    def _refuse_masks(self, source: Reader, image: str, first: Mapping[str, Any], read: Mapping[str, Any], count: int) -> None:
        """Raises ConfigError, with what the first of some masks lacks, none of which is one; as the file has it, and as it was read."""
        code, why = {"size": read["size"], "counts": read["counts"]}, "it covers no pixel"
        try:
            rle.area(code)
        except rle.RegionError as error:
            why = str(error)
        paths = self.mapping["masks"]
        raise ConfigError(
            f"{source.path}: none of {count:,} masks that stand together is one. That of region {first['region']!r} of image {image!r} has "
            f"'{paths['size']}' {first['size']} and '{paths['counts']}' {str(first['counts'])[:60]!r}: {why}. They are COCO's run lengths, "
            "a text or a list of numbers: correct the file, or masks.size and masks.counts in a mapping (--mapping)"
        )

    def _check_scales(self, source: Reader, found: pa.Table) -> None:
        """Raises ConfigError where most of a piece's scores are off the scale that the mapping gives them."""
        for task in ("quality", "importance"):
            given = one(found[task]).drop_null().to_numpy() if task in source.columns else np.empty(0)
            given, scale = given[np.isfinite(given)], Scale(**self.mapping["scales"][task])
            off = int(np.count_nonzero(~on_scale(given, scale)))
            if 2 * off > len(given) and self._enough("scores", len(given)):
                raise ConfigError(
                    f"{source.path}: {off:,} of {len(given):,} scores of {task} that stand together lie off their scale, {scale.low:g} "
                    f"to {scale.high:g}: they go from {given.min():g} to {given.max():g}. Say in a mapping (--mapping) what they were "
                    f"given on, and choose another folder or delete this one:\nscales:\n  {task}: {{low: <lowest>, high: <highest>}}"
                )

    def _write_scores(self, source: Reader, text: Path, out: Path) -> dict[str, int]:
        """A piece of the score file: a row for each image, with the list of its regions."""
        pattern = _literal(self.mapping["scores"]["name"])
        parts = f"regexp_extract(image, {pattern}, ['type', 'setting', 'reference']) AS parts"
        kind, setting, reference = (f"struct_extract(parts, '{name}')" for name in ("type", "setting", "reference"))
        number = f"CASE WHEN len(listed) > 0 AND {kind} <> '' THEN CAST({setting} AS INTEGER) END AS setting"
        images = self._table(source.select(text, f"{parts}, {number}, {self._bucket(reference)}"))
        listed = one(images["listed"])
        held, found, named = lengths(listed), source.regions(listed), one(images["parts"])
        odd = _first_nameless(images["image"], named.field("type"), np.repeat(np.arange(len(images)), held))
        if odd:
            raise ConfigError(
                f"scores.name: {pattern} finds no type, setting and reference in the image {odd[0]!r}: correct it in a mapping"
            )
        self._check_scales(source, found)
        known = np.flatnonzero(held)
        scored = [one(found[c]) if c in source.columns else pa.nulls(len(found), pa.float64()) for c in SCORES]
        regions = pa.StructArray.from_arrays([one(found["region"]), *scored], ["region", *SCORES])
        columns = {name: named.field(name) for name in ("reference", "type")}
        rows = pa.table({**columns, "setting": images["setting"]}).take(pa.array(known))
        ends = pa.array(np.append(0, np.cumsum(held[known])).astype(np.int32))
        rows = rows.append_column("regions", pa.ListArray.from_arrays(ends, regions))
        write_piece(out, rows, _numbers(images["bucket"])[known], self.buckets)
        return {"scores": len(found), **self._unknown("scores", source, found, listed)}

    def _unknown(self, name: str, source: Reader, found: pa.Table, listed: pa.ListArray) -> dict[str, int]:
        """How many regions lack a label, and how many images do not say what their regions are."""
        counts = {self._lacking(name, c): found[c].null_count for c in source.columns}
        counts[self._lacking(name, "regions")] = listed.null_count
        return {what: count for what, count in counts.items() if count}

    def _lacking(self, name: str, column: str) -> str:
        """What is counted where a label file lacks a column: regions, or, where it does not say which there are, images."""
        return f"{'images of ' if column == 'regions' else ''}{name} without {self.mapping[name][column]}"

    def _check_labels(self, name: str, counts: dict[str, int], chunk: Chunk) -> None:
        """Records whose keys change in the middle of a file."""
        regions = counts[name] + counts.get("masks left out", 0)
        lost = 0 if regions else counts.get(self._lacking(name, "regions"), 0)
        for column, count in (("regions", lost), *((c, regions) for c in _NEEDED)):
            path, what = self.mapping[name].get(column), "images" if column == "regions" else "regions"
            if path and count >= FEW and counts.get(self._lacking(name, column)) == count:
                raise ConfigError(
                    f"{self.readers[name].path}: of {count:,} {what} from byte {chunk.start:,} to {chunk.end:,} none has '{path}' "
                    f"({name}.{column}), which earlier ones have: give that part a file and a mapping of its own"
                )

    def _bucket(self, reference: str) -> str:
        return f"md5_number_lower({reference}) % {self.buckets} AS bucket"

    def _table(self, query: str) -> pa.Table:
        return self.sql.sql(query).to_arrow_table()

    def _write_table(self, bucket: int, path: Path, note: Path) -> None:
        """Joins one bucket; what stands twice is taken once, and counted in `note` like scores without a mask and masks without a score.
        The note is written before the table has its name: a table that is there is done."""
        found, scores = (read_bucket([piece for *_, piece in self._pieces(n, r.start)], bucket) for n, r in self.readers.items())
        given = self._of_one_size(found)
        self.sql.register("given", given)
        masks = self._table(f"SELECT * FROM given {_once('reference, region', 'position, counts, semantic, description')} {_MASKS_ORDER}")
        alike = self.sql.sql("SELECT DISTINCT reference, region, counts FROM given").count("*").fetchall()[0][0]
        self.sql.unregister("given")
        rows, twice, differing = once(joined(scores, masks), len(masks), SCORES)
        scored, unscored = int(lengths(one(scores["regions"])).sum()), np.ones(len(masks), np.bool_)
        unscored[rows["number"].to_numpy()] = False
        images = 0
        with RecordWriter(path, ROWS) as writer:
            for table in self.maker.tables(rows, masks, GROUP):
                writer.write_table(table, GROUP)
                images += len(table)
            counts = {
                "images": images,
                "regions": len(rows),
                "scores without a mask": scored - len(rows) - twice,
                "masks without a score": int(np.count_nonzero(unscored)),
                "scores that stand twice": twice,
                "masks that stand twice": len(given) - len(masks),
                "scores that stand twice and differ": differing,
                "masks that stand twice and differ": alike - len(masks),
                "masks of another size": len(found) - len(given),
            }
            _write_text(note, json.dumps(counts))

    def _of_one_size(self, found: pa.Table) -> pa.Table:
        """Without the masks of another size than most of their reference's have, the larger size where as many have either: a row of the
        schema has one height and one width, and a mask of another size would take the sound ones with it."""
        self.sql.register("found_masks", found)
        sizes = "SELECT reference, height, width, count(DISTINCT region) AS often FROM found_masks GROUP BY reference, height, width"
        order = "often DESC, height::BIGINT * width DESC, height DESC"
        others = self._table(f"{sizes} QUALIFY row_number() OVER (PARTITION BY reference ORDER BY {order}) > 1")
        self.sql.register("others", others)
        kept = self._table("SELECT * FROM found_masks ANTI JOIN others USING (reference, height, width)") if len(others) else found
        self.sql.unregister("others")
        self.sql.unregister("found_masks")
        return kept


def _turned(sizes: pa.ListArray) -> pa.Array:
    """Lists in the other order."""
    return pa.array([None if size is None else size[::-1] for size in sizes.to_pylist()], sizes.type)


def _as_texts(found: pa.Table) -> pa.Table:
    """Masks whose run lengths are a list of numbers, in COCO's text form; one that is none stays as it is."""
    listed = np.flatnonzero(pc.ends_with(one(found["counts"]).fill_null(""), "]").to_numpy(zero_copy_only=False))  # as no text does
    if not len(listed):
        return found
    counts = found["counts"].to_pylist()
    for i, size in zip(listed.tolist(), found["size"].take(pa.array(listed)).to_pylist(), strict=True):
        with suppress(ValueError):
            counts[i] = rle.as_text({"size": size, "counts": json.loads(counts[i])})["counts"]
    return found.set_column(found.schema.get_field_index("counts"), "counts", pa.array(counts, pa.string()))


def _measured(found: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of masks, (N, 2) height and width, and (N, 5) left, top, width, height and area, which is 0 where a mask is none."""
    sizes, counts = found["size"].combine_chunks(), found["counts"].combine_chunks().fill_null("")
    pairs = np.flatnonzero(sizes.value_lengths().fill_null(0).to_numpy() == 2)
    sides = np.zeros((len(found), 2), np.int64)
    sides[pairs] = sizes.take(pa.array(pairs)).flatten().fill_null(0).to_numpy().reshape(-1, 2)
    _, ends, text = counts.buffers()
    places = np.frombuffer(ends, np.int32)[counts.offset : counts.offset + len(counts) + 1].astype(np.int64)
    characters = np.frombuffer(text, np.uint8) if text is not None and len(found) else np.empty(0, np.uint8)
    return sides, measure_all(sides[:, 0], sides[:, 1], characters, places)


def _first_nameless(images: pa.ChunkedArray, names: Any, image: NDArray[np.int64]) -> list[str | None]:
    """The first image with a region in whose name no reference was found; none where there is none.

    Args:
        image: of each region, which it is of.
    """
    nameless = pc.equal(pc.fill_null(names, ""), "").to_numpy(zero_copy_only=False)
    odd = image[nameless[image]][:1]
    return list(images.take(pa.array(odd)).to_pylist())


def _numbers(column: pa.ChunkedArray) -> NDArray[np.int64]:
    return np.asarray(column.fill_null(0).to_numpy(), np.int64)


def _mark(path: Path) -> str:
    """Of a label file, which is too large to read for it: its size, its beginning and its end."""
    size, mark = path.stat().st_size, hashlib.sha256()
    with path.open("rb") as file:
        mark.update(file.read(2**20))
        file.seek(max(0, size - 2**20))
        mark.update(file.read())
    return f"{size} bytes, ends {mark.hexdigest()[:16]}"


def _archives(folder: Path) -> dict[str, int]:
    """Paths of the archives below a folder, as tables name them, and their bytes."""
    files = (Path(above, name) for above, _, names in os.walk(folder, followlinks=True) for name in names)
    return {p.relative_to(folder).as_posix(): p.stat().st_size for p in sorted(files) if p.suffix.lower() in ARCHIVES}


def _once(key: str, order: str) -> str:
    """Of rows of one key the first in an order of their values: it depends neither on pieces nor on threads."""
    return f"QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY {order}) = 1"


def _literal(text: str) -> str:
    return "'{}'".format(text.replace("'", "''"))


def _write_text(path: Path, text: str) -> None:
    draft = path.with_name(f"{path.name}.draft")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
