from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components import rle
from components.rle import RegionError
from datamodules.records import ImageRecord, RegionRecord, Scale, encode_png
from datamodules.tables import (
    SCHEMA,
    VERSION_KEY,
    RecordWriter,
    from_row,
    iterate_records,
    read_records,
    to_row,
    write_records,
)

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
MASK = np.zeros((6, 9), bool)
MASK[2:5, 1:7] = True


def record(name: str = "photo", *regions: RegionRecord) -> ImageRecord:
    return ImageRecord(name, "scene", "train", 6, 9, regions, encode_png(PIXELS))


def region(name: str = "r", **known) -> RegionRecord:
    return RegionRecord(name, rle.encode(MASK)["counts"], **known)


FULL = region(
    "full",
    quality=0.25,
    quality_std=0.1,
    importance=1.0,
    importance_std=0.0,
    distortions=(("blur", "minor"), ("noise", "severe")),
    semantic="cup",
    description="A white cup.",
)
MOS, RANK = Scale(1, 5), Scale(0, 100, "lower")


@pytest.mark.parametrize(
    "written",
    [
        record("nothing is known", region()),
        record("clean", region(distortions=())),
        record("everything", FULL, region("other", quality=0.1 + 0.2)),
        record("on scales", region(quality=0.55, quality_std=0.125, quality_scale=MOS, importance=0.25, importance_scale=RANK)),
        replace(record("elsewhere"), png=b"", path="Blur_3.zip::Blur_3/000123.png", hash="crc32:00ff", reference="Ref.zip::000123.png"),
        record("no regions"),
        record("ünïcode 图像 \U0001f98a", region("région/№ 1")),
    ],
    ids=lambda r: r.id.encode("ascii", "ignore").decode(),
)
def test_what_is_written_is_read(tmp_path, written):
    path = tmp_path / "ünï code" / "part.parquet"
    write_records(path, [written])
    assert read_records([path]) == [written]


def test_unknown_and_clean_are_not_the_same(tmp_path):
    write_records(tmp_path / "a.parquet", [record("a", region("clean", distortions=()), region("unknown"))])
    assert [r.distortions for r in read_records([tmp_path / "a.parquet"])[0].regions] == [(), None]


def test_files_are_read_in_the_order_given(tmp_path):
    for name in "abc":
        write_records(tmp_path / f"{name}.parquet", [record(f"{name}0"), record(f"{name}1")])
    read = read_records([tmp_path / f"{name}.parquet" for name in "cab"])
    assert [r.id for r in read] == ["c0", "c1", "a0", "a1", "b0", "b1"]
    assert read_records([]) == []


def test_an_empty_file_has_no_records(tmp_path):
    write_records(tmp_path / "a.parquet", [])
    assert read_records([tmp_path / "a.parquet"]) == []


def test_a_folder_named_like_a_partition_adds_no_column(tmp_path):
    path = tmp_path / "lr=0.1" / "a.parquet"
    write_records(path, [record("a")])
    assert read_records([path])[0].id == "a"


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_crash_in_the_middle_leaves_the_old_file(tmp_path, monkeypatch, error):
    path = tmp_path / "a.parquet"
    write_records(path, [record("old")])

    def half(writer, table, row_group_size):
        raise error

    monkeypatch.setattr(pq.ParquetWriter, "write_table", half)
    with pytest.raises(type(error)):
        write_records(path, [record("new")])
    assert [r.id for r in read_records([path])] == ["old"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_record_that_cannot_be_written_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.parquet"
    write_records(path, [record("old")])
    with pytest.raises(pa.ArrowException):
        write_records(path, [record("new", region(quality="good"))])
    assert [r.id for r in read_records([path])] == ["old"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    write_records(path, [record("a")])
    for damaged in (path.read_bytes()[:-9], path.read_bytes()[:20], b"", b"no parquet at all, but text"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"is not a whole Parquet file .*delete it and prepare the data again"):
            read_records([path])


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.parquet"):
        read_records([tmp_path / "a.parquet"])


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (
            pa.schema([("id", pa.string()), ("mos", pa.float64())]),
            r"it names none\): it lacks source \(string\);.* it has mos \(double\), which is",
        ),
        (SCHEMA.set(3, pa.field("height", pa.int64())), r"height is int64 in place of int32"),
        (SCHEMA.set(8, pa.field("regions", pa.list_(pa.struct([("id", pa.string())])))), r"it lacks regions\.counts \(string\); "),
        (SCHEMA.set(8, pa.field("regions", pa.string())), "regions is string in place of nested"),
        (pa.schema(list(SCHEMA)[::-1]), "stand in another order: png, regions, .* in place of id, source, "),
        (SCHEMA.with_metadata({VERSION_KEY: b"9"}), "it names version 9.*the columns are the same, their meaning may not be"),
    ],
)
def test_a_table_of_another_schema_is_refused_with_what_differs(tmp_path, schema, said):
    pq.write_table(schema.empty_table(), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=f"does not hold records of schema version 2 .*{said}"):
        read_records([tmp_path / "a.parquet"])


def test_a_table_written_by_another_program_is_read(tmp_path):
    table = pa.Table.from_pylist([to_row(record("a", FULL))], SCHEMA).replace_schema_metadata({})
    pq.write_table(table, tmp_path / "a.parquet", compression="snappy")
    assert read_records([tmp_path / "a.parquet"]) == [record("a", FULL)]


def test_on_disk_scores_are_as_they_were_given():
    """3.2 on 1 to 5 is written as 3.2, and read as what 3.2 is on [0, 1], to the last bit."""
    for given in (1.1, 3.2, 4.7):
        known = region(quality=MOS.unit(given), quality_std=MOS.unit_std(0.7), quality_scale=MOS)
        row = to_row(record("a", known))
        assert (row["regions"][0]["quality"], row["regions"][0]["quality_std"]) == (given, 0.7)
        assert row["regions"][0]["quality_scale"] == {"low": 1, "high": 5, "direction": "higher"}
        assert from_row(row).regions[0] == known


def test_box_and_area_are_written_beside_the_mask_and_measured_anew_when_read(tmp_path):
    write_records(tmp_path / "a.parquet", [record("a", region())])
    (row,) = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert (row["regions"][0]["box"], row["regions"][0]["area"]) == ({"left": 1, "top": 2, "width": 6, "height": 3}, 18)
    row["regions"][0].update(box={"left": 5, "top": -1, "width": None, "height": 10**6}, area=1)
    read = from_row(row).measured().regions[0]
    assert (read.box, read.area) == ((1, 2, 6, 3), 18)


@pytest.mark.parametrize(("mask", "said"), [(np.zeros((6, 9)), "an empty region has no box"), (np.ones((5, 5)), "size 6 x 9 has 54")])
def test_a_mask_without_a_box_is_not_written(tmp_path, mask, said):
    broken = RegionRecord("r", rle.encode(mask)["counts"])
    with pytest.raises(RegionError, match=said):
        write_records(tmp_path / "a.parquet", [record("a", broken)])
    assert list(tmp_path.iterdir()) == []


def test_what_a_row_leaves_out_is_unknown():
    """As another program may write it: nulls in place of empty texts, and scores without a scale."""
    row = to_row(record("a", region(quality=0.25)))
    row |= {"path": None, "hash": None, "reference": None}
    row["regions"][0] |= {"quality_scale": None, "importance_scale": None, "box": None, "area": None}
    assert from_row(row) == record("a", region(quality=0.25))


def test_a_file_is_written_and_read_row_group_by_row_group(tmp_path, monkeypatch):
    monkeypatch.setattr("datamodules.tables.GROUP_IMAGES", 3)
    records = [record(f"{i}", region(f"{i}")) for i in range(8)]
    with RecordWriter(tmp_path / "a.parquet") as writer:
        for one in records[:4]:
            writer.write(one)
        writer.write_table(pa.Table.from_pylist([to_row(r) for r in records[4:6]], SCHEMA), 2)
        for one in records[6:]:
            writer.write(one)
    with pq.ParquetFile(tmp_path / "a.parquet") as file:
        assert [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)] == [3, 1, 2, 2]
    assert list(iterate_records(tmp_path / "a.parquet")) == records


def test_embedded_images_close_a_row_group_by_their_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr("datamodules.tables.GROUP_BYTES", 1)
    write_records(tmp_path / "a.parquet", [record("a"), record("b")])
    with pq.ParquetFile(tmp_path / "a.parquet") as file:
        assert file.num_row_groups == 2


def test_equal_records_make_equal_bytes(tmp_path):
    for name in "ab":
        write_records(tmp_path / name, [record("x", FULL, region("other", quality=0.3, quality_scale=MOS))])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
