from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from components import rle
from components.rle import RegionError
from datamodules.records import ImageRecord, RegionRecord, encode_png, read_records, write_records

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
MASK = np.zeros((6, 9), bool)
MASK[2:5, 1:7] = True


def record(name: str = "photo", *regions: RegionRecord) -> ImageRecord:
    return ImageRecord(name, "scene", "train", 6, 9, regions, encode_png(PIXELS))


def region(name: str = "r", **known) -> RegionRecord:
    return RegionRecord(name, rle.encode(MASK)["counts"], **known)


FULL = region(
    "full", quality=0.25, quality_std=0.1, importance=1.0, importance_std=0.0, distortions=(("blur", "minor"), ("noise", "severe"))
)


@pytest.mark.parametrize(
    "written",
    [
        record("nothing is known", region()),
        record("clean", region(distortions=())),
        record("everything", FULL, region("other", quality=0.1 + 0.2)),
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

    def half(table, draft):
        draft.write_bytes(b"PAR1 half")
        raise error

    monkeypatch.setattr(pq, "write_table", half)
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


def test_other_peoples_tables_are_refused(tmp_path):
    pq.write_table(pa.table({"id": ["a"], "mos": [0.5]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="does not hold records: its columns are id: string, mos: double, expected id: string, source:"):
        read_records([tmp_path / "a.parquet"])


def test_a_sample_has_the_pixels_and_the_masks():
    sample = record("a", region(), region("other")).sample()
    assert sample.image.shape == (3, 6, 9)
    assert sample.image.dtype == torch.uint8
    np.testing.assert_array_equal(sample.image.permute(1, 2, 0).numpy(), PIXELS)
    assert sample.masks().dtype == torch.bool
    np.testing.assert_array_equal(sample.masks().numpy(), np.stack([MASK, MASK]))


def test_no_regions_are_no_masks():
    assert record().sample().masks().shape == (0, 6, 9)


def test_a_mask_of_another_size_is_refused():
    other = RegionRecord("r", rle.encode(np.ones((5, 5)))["counts"])
    with pytest.raises(RegionError, match="they sum to 25 pixels, size 6 x 9 has 54"):
        record("a", other).sample().masks()


def test_grey_pixels_become_rgb():
    grey = ImageRecord("a", "s", "val", 6, 9, (), encode_png(PIXELS[..., 0]))
    np.testing.assert_array_equal(grey.pixels(), PIXELS[..., :1].repeat(3, -1))
