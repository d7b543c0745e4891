"""Rows come back by their buckets, in the order in which they were given."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from datamodules.label_pieces import read_bucket, write_piece

BUCKETS = 5


def piece(first: int, count: int) -> tuple[pa.Table, np.ndarray]:
    numbers = np.arange(first, first + count)
    lists = [[{"region": f"{n}-{r}", "quality": n / 7 if r else None} for r in range(n % 3)] for n in numbers.tolist()]
    kind = pa.list_(pa.struct([("region", pa.string()), ("quality", pa.float64())]))
    columns = {"number": numbers, "reference": [f"{n}" for n in numbers.tolist()], "regions": pa.array(lists, kind)}
    return pa.table(columns), numbers * 7 % 4


def test_a_bucket_of_several_pieces(tmp_path):
    pieces = [piece(0, 40), piece(40, 1), piece(41, 60)]
    paths = [tmp_path / f"{n}.arrow" for n in range(len(pieces))]
    for path, (rows, bucket) in zip(paths, pieces, strict=True):
        write_piece(path, rows, bucket, BUCKETS)
    every = pa.concat_tables([rows for rows, _ in pieces]).to_pylist()
    buckets = np.concatenate([bucket for _, bucket in pieces]).tolist()
    for bucket in range(BUCKETS):
        assert read_bucket(paths, bucket).to_pylist() == [row for row, own in zip(every, buckets, strict=True) if own == bucket]
    assert len(read_bucket(paths, BUCKETS - 1)) == 0  # which no row is of


def test_a_piece_without_rows(tmp_path):
    rows, bucket = piece(0, 3)
    write_piece(tmp_path / "none.arrow", rows.slice(0, 0), bucket[:0], BUCKETS)
    assert read_bucket([tmp_path / "none.arrow"], 2) == rows.slice(0, 0)
