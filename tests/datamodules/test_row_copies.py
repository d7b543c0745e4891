"""Rows out of copies are the rows of the tables, and a copy is whole, of this table, or not there."""

from __future__ import annotations

import errno
import pickle
import shutil
from collections import namedtuple
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from components import rle
from components.registry import ConfigError
from datamodules import row_copies, rows
from datamodules.datasets.indexed import Indexed
from datamodules.records import ImageRecord, RegionRecord, Scale, encode_png
from datamodules.row_copies import make_copies, place_of, plain, size_of_copy
from datamodules.rows import TableFiles
from datamodules.tables import SCHEMA, RecordWriter, read_group, to_row, write_records

COUNTS = rle.encode(np.eye(8, dtype=bool))["counts"]
PNG = encode_png(np.zeros((8, 8, 3), np.uint8))


def record(n):
    """Every kind of what may be there and what may lack."""
    regions = (
        RegionRecord(
            f"{n}/0", COUNTS, 0.5, 0.01, 0.25, quality_scale=Scale(1.0, 5.0), distortions=(("blur", "minor"), ("noise", "severe"))
        ),
        RegionRecord(f"{n}/1", COUNTS, None, None, 0.5, distortions=()),
        RegionRecord(f"{n}/2", COUNTS, n / 10, distortions=None, semantic="cup", description="a cup"),
    )
    return ImageRecord(f"{n}", f"scene {n}", ("train", "val", "test")[n % 3], 8, 8, regions[: 1 + n % 3], path=f"{n}.png", hash="x")


@pytest.fixture
def root(tmp_path):
    """Two tables, one of them in two row groups, and the images beside them."""
    folder = tmp_path / "data"
    folder.mkdir()
    for n in range(9):
        (folder / f"{n}.png").write_bytes(PNG)
    write_records(folder / "a.parquet", [record(n) for n in range(4)])
    with RecordWriter(folder / "b.parquet") as writer:
        for n in range(4, 9):
            writer.write(record(n))
            if n == 6:
                writer._flush()
    return folder


def samples(root, cache):
    data = Indexed(root=str(root), cache=str(cache) if cache else "")
    data.prepare()
    return {split: data.split(split) for split in ("train", "val", "test")}


def test_samples_are_the_same_with_copies_and_without(root, tmp_path):
    plainly, copied = samples(root, None), samples(root, tmp_path / "cache")
    assert sorted(p.name.split("-")[0] for p in (tmp_path / "cache" / "rows").iterdir()) == ["a", "b"]
    for split, wanted in plainly.items():
        found = pickle.loads(pickle.dumps(copied[split]))
        assert [found.record(i) for i in range(len(found))] == [wanted.record(i) for i in range(len(wanted))]
        assert [found[i].record for i in range(len(found))] == [wanted[i].record for i in range(len(wanted))]


def test_rows_come_out_of_the_copy_and_no_table_is_opened(root, tmp_path, monkeypatch):
    found = samples(root, tmp_path / "cache")["train"]
    monkeypatch.setattr("datamodules.rows.open_table", lambda *_: pytest.fail("a table was opened"))
    assert [found.record(i).id for i in range(len(found))] == ["0", "3", "6"]


def test_a_table_of_other_content_has_another_copy(root, tmp_path):
    make_copies([root / "a.parquet"], tmp_path / "rows")
    before = place_of(root / "a.parquet", tmp_path / "rows")
    write_records(root / "a.parquet", [replace(record(n), source="another scene") for n in range(4)])
    assert place_of(root / "a.parquet", tmp_path / "rows") != before
    make_copies([root / "a.parquet"], tmp_path / "rows")
    assert TableFiles([root / "a.parquet"], tmp_path / "rows").row(0, 0, 0)["source"] == "another scene"


def test_a_copy_of_another_form_is_not_read(root, tmp_path, monkeypatch):
    part = root / "a.parquet"
    monkeypatch.setattr(row_copies, "_FORM", row_copies._FORM - 1)
    place_of(part, tmp_path).write_bytes(b"of another form")
    monkeypatch.undo()
    make_copies([part], tmp_path)
    assert TableFiles([part], tmp_path).row(0, 0, 1) == TableFiles([part]).row(0, 0, 1)
    assert len([*tmp_path.glob("a-*.arrow")]) == 2


def test_what_may_be_null_is_null_in_the_copy(tmp_path):
    """Regions, lists of them, and masks; the last row shares its mask with the first."""
    rows = [to_row(replace(record(5), id=f"{n}")) for n in range(5)]
    rows[1]["regions"] = None
    rows[2]["regions"][1]["counts"] = None
    rows[3]["regions"] = [None, *rows[3]["regions"]]
    rows[4]["regions"][0]["counts"] = "another"
    with RecordWriter(tmp_path / "a.parquet") as writer:
        writer.write_table(pa.Table.from_pylist(rows, SCHEMA), 5)
    make_copies([tmp_path / "a.parquet"], tmp_path / "rows")
    (copy,) = (tmp_path / "rows").iterdir()
    found, wanted = TableFiles([tmp_path / "a.parquet"], tmp_path / "rows"), TableFiles([tmp_path / "a.parquet"])
    assert [found.row(0, 0, n) for n in range(5)] == [wanted.row(0, 0, n) for n in range(5)]
    assert [found.row(0, 0, 4)["regions"][r]["counts"] for r in range(2)] == ["another", COUNTS]
    with pa.memory_map(str(copy)) as file:
        assert pa.ipc.open_file(file).get_batch(0).column("masks").to_pylist() == [[COUNTS, "another"], [], [], [], []]


def test_a_mask_of_many_versions_stands_once_in_a_row_group(tmp_path):
    """A copy is some times as large as its table, which packs numbers, and not fifty times; its size is told before it is written."""
    part, rng = tmp_path / "part.parquet", np.random.default_rng(0)
    masks = [rle.encode(rng.random((64, 64)) < 0.3)["counts"] for _ in range(8)]
    rows = []
    for n in range(128):
        regions = tuple(
            RegionRecord(f"{n}/{r}", m, rng.random(), None, rng.random(), distortions=(("blur", "minor"),)) for r, m in enumerate(masks)
        )
        rows.append(to_row(ImageRecord(f"{n}", "s", "train", 64, 64, regions, path=f"Blur_0.zip::Blur_0/{n}.png")))
    with RecordWriter(part) as writer:
        writer.write_table(pa.Table.from_pylist(rows, SCHEMA), 64)
    make_copies([part], tmp_path / "rows")
    (copy,) = (tmp_path / "rows").iterdir()
    assert copy.stat().st_size < 8 * part.stat().st_size
    assert copy.stat().st_size == pytest.approx(size_of_copy(part), rel=0.15)


def test_a_disk_without_room_is_told_before_anything_is_written(root, tmp_path, monkeypatch):
    parts, free = [root / "a.parquet", root / "b.parquet"], namedtuple("usage", "total used free")
    needed = sum(map(size_of_copy, parts))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free(10**6, 0, needed - 1))
    with pytest.raises(
        ConfigError, match=rf"copies of 2 tables take about {needed:,} bytes there, and {needed - 1:,} are free.*data\.cache"
    ):
        make_copies(parts, tmp_path / "not yet" / "rows")
    assert not (tmp_path / "not yet").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free(10**6, 0, needed))
    make_copies(parts, tmp_path / "not yet" / "rows")
    assert len([*(tmp_path / "not yet" / "rows").iterdir()]) == 2


def test_a_label_alone_makes_another_copy(tmp_path):
    """Two labels change places: no size and no extreme tells the two tables apart."""
    part, scores = tmp_path / "part.parquet", (0.0, 0.25, 0.5, 1.0)
    for order in (scores, (0.0, 0.5, 0.25, 1.0)):
        regions = [RegionRecord(f"{n}/0", COUNTS, score) for n, score in enumerate(order)]
        write_records(part, [ImageRecord(f"{n}", "s", "train", 8, 8, (r,), path=f"{n}.png") for n, r in enumerate(regions)])
        make_copies([part], tmp_path / "rows")
        tables = TableFiles([part], tmp_path / "rows")
        assert [tables.row(0, 0, n)["regions"][0]["quality"] for n in range(4)] == list(order)
    assert len({path.name.split("-")[1] for path in (tmp_path / "rows").iterdir()}) == 1  # the footers are the same


def test_a_copy_that_is_there_is_not_made_again(root, tmp_path, monkeypatch):
    make_copies([root / "a.parquet"], tmp_path)
    monkeypatch.setattr(row_copies, "_copy", lambda *_: pytest.fail("made again"))
    make_copies([root / "a.parquet"], tmp_path)


def test_tables_that_hold_images_are_not_copied(tmp_path):
    held = [
        replace(record(n), path="", png=encode_png(np.random.default_rng(n).integers(0, 256, (8, 8, 3), np.uint8)) * 9) for n in range(3)
    ]
    write_records(tmp_path / "part.parquet", held)
    make_copies([tmp_path / "part.parquet"], tmp_path / "rows")
    assert not (tmp_path / "rows").exists()


def test_a_row_group_too_large_for_one_array_is_read_whole_and_not_copied(root, tmp_path, monkeypatch):
    """Beyond 2 GB of images or texts in a column Arrow hands over a row group in pieces."""

    def in_pieces(*arguments):
        table = read_group(*arguments)
        return pa.concat_tables([table.slice(0, 1), table.slice(1, 1), table.slice(2)])

    expected = samples(root, None)
    monkeypatch.setattr(rows, "read_group", in_pieces)
    monkeypatch.setattr(row_copies, "_LIMIT", 8)
    found = samples(root, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    for split, some in expected.items():
        assert len(some)
        assert [found[split].record(i) for i in range(len(found[split]))] == [some.record(i) for i in range(len(some))]


def test_a_row_group_is_one_batch_or_refused():
    class Large:
        def __len__(self):
            return 3

        def combine_chunks(self):
            return pa.concat_tables([pa.table({"id": ["a"]}), pa.table({"id": ["b", "c"]})])

    with pytest.raises(ValueError, match=r"a row group of 3 rows holds more than 2,147,483,647 bytes of text .* or to '' to train without"):
        row_copies.as_batch(Large())


def test_an_interrupted_copy_is_not_there(root, tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(row_copies, "as_batch", killed)
    with pytest.raises(KeyboardInterrupt):
        make_copies([root / "a.parquet"], tmp_path / "rows")
    assert list((tmp_path / "rows").iterdir()) == []


def test_a_full_disk_is_named_with_a_remedy(root, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(row_copies, "as_batch", full)
    with pytest.raises(ConfigError, match=r"No space left on device\).*set data\.cache to a folder with room, or to ''"):
        make_copies([root / "a.parquet"], tmp_path / "rows")


def test_plain_values_are_those_of_arrow():
    inner = pa.struct([("a", pa.int32()), ("b", pa.list_(pa.struct([("c", pa.string())])))])
    rows = [[{"a": 1, "b": [{"c": "x"}, {"c": None}]}, None, {"a": None, "b": None}], None, [], [{"a": 2, "b": []}]]
    array = pa.array(rows, pa.list_(inner))
    for some in (array, array.slice(1), array.slice(2, 1), array.slice(0, 1)):
        assert plain(some) == some.to_pylist()
    words = pa.array(["x", None, "y", "x"]).dictionary_encode()
    assert plain(words) == ["x", None, "y", "x"]
