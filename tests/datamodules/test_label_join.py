"""Masks and scores are brought together as a join by names brings them, whatever their order; what stands twice is taken once."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest

from datamodules.label_join import joined, once

SCORES = ("quality", "importance")
SCORED = pa.list_(pa.struct([("region", pa.string()), *((name, pa.float64()) for name in SCORES)]))


def scores(rows) -> pa.Table:
    """(reference, type, setting, [(region, quality, importance), ...]) of each image."""
    columns = list(zip(*rows, strict=True)) or [[], [], [], []]
    lists = [[dict(zip(("region", *SCORES), region, strict=True)) for region in regions] for regions in columns[3]]
    texts = {name: pa.array(columns[n], pa.string()) for n, name in enumerate(("reference", "type"))}
    return pa.table({**texts, "setting": pa.array(columns[2], pa.int32()), "regions": pa.array(lists, SCORED)})


def masks(rows) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [[], []]
    return pa.table({name: pa.array(columns[n], pa.string()) for n, name in enumerate(("reference", "region"))})


@pytest.fixture
def drawn():
    """Names and regions that stand on one side alone, and nameless ones."""
    rng = np.random.default_rng(0)
    own = [(r, n) for r in ("b", "a", "d") for n in ("2", "10", "x", None) if (r, n) != ("a", "x")]
    own = [own[i] for i in rng.permutation(len(own))]
    names = ["10", "x", "2", "other", None]
    rated = [
        (reference, kind, int(rng.integers(0, 3)), [(names[i], *rng.random(2).tolist()) for i in rng.permutation(5)[: rng.integers(1, 5)]])
        for reference in ("a", "b", "c", "d")
        for kind in ("Noise", "Blur")
        for _ in range(2)
    ]
    return own, [rated[i] for i in rng.permutation(len(rated))]


def test_joined_by_names(drawn):
    own, rated = drawn
    expected = sorted(
        (own.index((reference, name)), kind, setting, *values)
        for reference, kind, setting, regions in rated
        for name, *values in regions
        if name is not None and (reference, name) in own
    )
    rows = joined(scores(rated), masks(own))
    found = rows.to_pylist()
    assert sorted(tuple(row[k] for k in ("number", "type", "setting", *SCORES)) for row in found) == expected
    images = {row["image"]: (own[row["number"]][0], row["type"], row["setting"]) for row in found}
    assert [images[number] for number in sorted(images)] == sorted(images.values())
    assert len(expected) > 15


def test_once_in_the_order_of_images_and_masks(drawn):
    """Of two that differ, the lowest quality; an unknown one last. What differs not is no difference."""
    own = [("a", "0"), ("a", "1"), ("b", "0")]
    rated = [
        ("b", "blur", 0, [("0", 0.5, 0.5)]),
        ("a", "blur", 0, [("1", 0.7, 0.1), ("0", None, 0.2)]),
        ("a", "blur", 0, [("1", 0.6, 0.9), ("0", None, 0.2)]),
        ("b", "blur", 0, [("0", None, 0.5)]),
    ]
    expected = [(0, None, 0.2), (1, 0.6, 0.9), (2, 0.5, 0.5)]
    for order in ((0, 1, 2, 3), (3, 2, 1, 0)):
        rows, twice, differing = once(joined(scores([rated[n] for n in order]), masks(own)), len(own), SCORES)
        assert [tuple(row[k] for k in ("number", *SCORES)) for row in rows.to_pylist()] == expected
        assert (twice, differing) == (3, 2)
    rows, twice, differing = once(joined(scores(rated[:2]), masks(own)), len(own), SCORES)
    assert [row["number"] for row in rows.to_pylist()] == [0, 1, 2]
    assert (twice, differing) == (0, 0)
    assert math.isnan(rows["quality"].to_numpy()[0])


@pytest.mark.parametrize(("own", "rated"), [([], [("a", "blur", 0, [("0", 0.5, 0.5)])]), ([("a", "0")], []), ([], [])])
def test_nothing_to_join(own, rated):
    rows, *counts = once(joined(scores(rated), masks(own)), len(own), SCORES)
    assert (len(rows), counts) == (0, [0, 0])
