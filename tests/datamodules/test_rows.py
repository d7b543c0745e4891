"""Tables are held open within bounds, and what the system refuses is not called damage."""

from __future__ import annotations

import errno
import subprocess
import sys
from textwrap import dedent

import numpy as np
import pytest

from components import rle
from datamodules.records import ImageRecord, RegionRecord, encode_png
from datamodules.rows import OPEN_TABLES
from datamodules.tables import read_group, write_records

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


def in_a_process_of_few_descriptors(script, parts):
    """What the script prints, in a process of its own that has room for fewer files than there are tables.

    The limit is on a descriptor's number, and which numbers are free in a process that ran other tests is chance.
    """
    limited = f"""
        import resource, sys
        from pathlib import Path
        resource.setrlimit(resource.RLIMIT_NOFILE, ({OPEN_TABLES + 30}, {OPEN_TABLES + 30}))
        parts = sorted(Path(sys.argv[1]).glob("*.parquet"))
    """
    command = [sys.executable, "-c", dedent(limited) + dedent(script), str(parts[0].parent)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


def test_more_tables_than_may_be_open_are_read(parts):
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(PARTS), 2)).tolist()
    script = f"""
        from datamodules.rows import TableFiles
        tables = TableFiles(parts)
        for part in {order}:
            print(tables.row(part, 0, 0)["id"])
    """
    assert in_a_process_of_few_descriptors(script, parts) == [str(part) for part in order]


def test_a_whole_table_that_the_system_does_not_open_is_not_called_damaged(parts):
    script = """
        from datamodules.tables import open_table
        held = []
        try:
            held.extend(open_table(path) for path in parts)
        except OSError as error:
            print(error.errno, error, sep="\\n")
    """
    number, message = in_a_process_of_few_descriptors(script, parts)
    assert int(number) == errno.EMFILE
    assert "cannot be read (Too many open files); nothing says that it is damaged" in message


def test_a_group_that_the_disk_does_not_give_is_not_called_damaged(parts):
    class Failing:
        def read_row_groups(self, *_, **__):
            raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match=r"cannot be read \(Input/output error\)"):
        read_group(Failing(), parts[0], 0)
