"""Masks and scores of a bucket, which stand in files of their own and in any order, brought together: by columns, never by objects."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def joined(scores: pa.Table, masks: pa.Table) -> pa.Table:
    """The regions of scored images that have a mask, in any order.

    Args:
        scores: a row for each image: `reference`, `type`, `setting`, and `regions`, a list of `region` and its scores.
        masks: `reference` and `region`, both of them together once.

    Returns:
        `number` of the mask, `image` (a number that orders images by the ranks of their masks' reference, type and setting), `type`,
        `setting` and the scores, unknown ones null.
    """
    lists = one(scores["regions"])
    held, regions = pc.list_value_length(lists).to_numpy(), lists.flatten()
    references, names = (one(masks[name]).unique() for name in ("reference", "region"))
    reference, region = _places(scores["reference"], references), _places(regions.field("region"), names)
    image = np.repeat(np.arange(len(held)), held)
    key = np.where((reference[image] < 0) | (region < 0), -1, reference[image] * len(names) + region)
    named = _places(masks["region"], names)
    own = np.where(named < 0, -2, _places(masks["reference"], references) * len(names) + named)
    number = pc.index_in(pa.array(key), value_set=pa.array(own))
    found = number.is_valid().to_numpy(zero_copy_only=False)
    rank = np.empty(len(references), np.int64)
    rank[pc.sort_indices(references).to_numpy()] = np.arange(len(references))
    (kind, kinds), (setting, settings) = (_ranks(scores[name]) for name in ("type", "setting"))
    order = (rank[reference] if len(references) else reference) * len(kinds) * len(settings) + kind * len(settings) + setting
    image = image[found]
    columns = {
        "number": number.drop_null().cast(pa.int64()),
        "image": pa.array(order[image]),
        "type": pa.DictionaryArray.from_arrays(pa.array(kind[image].astype(np.int32)), kinds),
        "setting": settings.take(pa.array(setting[image])),
    }
    chosen = regions.filter(pa.array(found))
    scored = [field.name for field in regions.type if field.name != "region"]
    return pa.table({**columns, **{name: chosen.field(name) for name in scored}})


def once(rows: pa.Table, masks: int, scores: tuple[str, ...]) -> tuple[pa.Table, int, int]:
    """Joined rows in any order -> in the order of their images and masks; of rows of the same region of the same image the first in the
    order of their `scores`, which depends neither on pieces nor on threads; how many others there were, and how many of those have other
    scores.

    Args:
        masks: how many there are.
    """
    key = rows["image"].to_numpy() * masks + rows["number"].to_numpy()
    order = np.argsort(key, kind="stable")
    twice = int((key[order[1:]] == key[order[:-1]]).sum())
    if not twice:
        return rows.take(pa.array(order)), 0, 0
    rows = rows.append_column("key", pa.array(key)).sort_by([("key", "ascending"), *((name, "ascending") for name in scores)])
    key = rows["key"].to_numpy()
    first = np.append(True, key[1:] != key[:-1])
    kept = rows.filter(pa.array(first))
    chosen = kept.take(pa.array(np.cumsum(first) - 1))
    pairs = [(rows[n].to_numpy(), chosen[n].to_numpy()) for n in scores]  # what is unknown is NaN
    same = np.logical_and.reduce([(a == b) | (np.isnan(a) & np.isnan(b)) for a, b in pairs])
    return kept.drop_columns(["key"]), twice, int((~same).sum())


def one(column: pa.ChunkedArray) -> pa.Array:
    """A column in one array."""
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def _places(values: pa.Array | pa.ChunkedArray, known: pa.Array) -> NDArray[np.int64]:
    """(N,) where each value stands in `known`; -1 for one that does not, or is null."""
    found = pc.index_in(values, value_set=known, skip_nulls=True).fill_null(-1)
    return found.to_numpy().astype(np.int64)


def _ranks(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], pa.Array]:
    """Of each value its place among all that there are, in their order, and these."""
    codes = one(column).dictionary_encode()
    order = pc.sort_indices(codes.dictionary)
    ranks = np.empty(len(order), np.int64)
    ranks[order.to_numpy()] = np.arange(len(order))
    return ranks[codes.indices.to_numpy()], codes.dictionary.take(order)
