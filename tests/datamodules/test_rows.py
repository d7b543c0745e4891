"""Tables are held open within bounds, and what the system refuses is not called damage."""

from __future__ import annotations

import errno
import resource
from pathlib import Path

import numpy as np
import pytest

from components import rle
from datamodules.records import ImageRecord, RegionRecord, encode_png
from datamodules.rows import OPEN_TABLES, TableFiles
from datamodules.tables import open_table, read_group, write_records

PARTS = OPEN_TABLES + 40
PNG = encode_png(np.zeros((8, 8, 3), np.uint8))
COUNTS = rle.encode(np.eye(8, dtype=bool))["counts"]


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """As `synthesize` leaves them: a table for each photograph."""
    folder = tmp_path_factory.mktemp("parts")
    paths = [folder / f"part-{n:06d}.parquet" for n in range(PARTS)]
    for n, path in enumerate(paths):
        write_records(path, [ImageRecord(f"{n}", f"{n}", "train", 8, 8, (RegionRecord(f"{n}/0", COUNTS, 0.5),), PNG)])
    return paths


@pytest.fixture
def few_descriptors():
    """Room for fewer files than there are tables."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Path("/dev/null").open() as lowest_free:
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free.fileno() + OPEN_TABLES + 20, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_more_tables_than_may_be_open_are_read(parts, few_descriptors):
    tables = TableFiles(parts)
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(PARTS), 2)).tolist()
    assert [tables.row(part, 0, 0)["id"] for part in order] == [str(part) for part in order]


def test_a_whole_table_that_the_system_does_not_open_is_not_called_damaged(parts, few_descriptors):
    held = []
    with pytest.raises(OSError, match=r"cannot be read \(Too many open files\); nothing says that it is damaged") as caught:
        held.extend(open_table(path) for path in parts)
    assert caught.value.errno == errno.EMFILE


def test_a_group_that_the_disk_does_not_give_is_not_called_damaged(parts):
    class Failing:
        def read_row_groups(self, *_, **__):
            raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match=r"cannot be read \(Input/output error\)"):
        read_group(Failing(), parts[0], 0)
