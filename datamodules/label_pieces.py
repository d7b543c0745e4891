"""What a piece of a label file says: an Arrow file with a batch for each bucket, so that one is read without the others."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

SUFFIX = ".arrow"


def write_piece(path: Path, rows: pa.Table, bucket: NDArray[np.int64], buckets: int) -> None:
    """Writes rows, each into the batch of its bucket, where they keep their order.

    Args:
        bucket: (N,) of each row, from 0 to `buckets` - 1.
    """
    order = np.argsort(bucket, kind="stable")
    ends = np.searchsorted(bucket[order], np.arange(buckets + 1)).tolist()
    rows = rows.take(pa.array(order)).combine_chunks()
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, rows.schema) as writer:
        for start, end in itertools.pairwise(ends):
            batches = rows.slice(start, end - start).to_batches()
            writer.write_batch(batches[0] if batches else pa.RecordBatch.from_pylist([], rows.schema))


def read_bucket(paths: Sequence[Path], bucket: int) -> pa.Table:
    """The rows of a bucket in several pieces, one piece after the other. Raises ValueError where there are no pieces."""
    batches = []
    for path in paths:
        with pa.OSFile(str(path), "rb") as file:
            batches.append(pa.ipc.open_file(file).get_batch(bucket))
    return pa.Table.from_batches(batches).combine_chunks()
