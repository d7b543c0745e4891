"""Many masks at once are those one by one; what is none harms no neighbour."""

from __future__ import annotations

import numpy as np
import pytest

from components import rle
from components.rle_many import edges_of, measure_all, measure_edges, sample_all


def _together(codes):
    texts = [c["counts"].encode() for c in codes]
    sides = np.array([c["size"] for c in codes], np.int64).reshape(-1, 2)
    return measure_all(sides[:, 0], sides[:, 1], np.frombuffer(b"".join(texts), np.uint8), np.cumsum([0, *map(len, texts)]))


def test_many_masks_measured_at_once_are_those_measured_one_by_one():
    rng = np.random.default_rng(0)
    codes = [rle.encode(rng.random(rng.integers(1, 24, 2)) < rng.choice([0.02, 0.5, 0.98])) for _ in range(300)]
    codes += [rle.encode(np.ones((3, 4))), rle.encode(np.eye(7)), {"size": [2, 3], "counts": "1014"}]  # a run of no pixels
    expected = []
    for code in codes:
        try:
            box, area = rle.measure(code)
            expected.append([*box, area])
        except rle.RegionError:  # empty
            expected.append([0] * 5)
    assert _together(codes).tolist() == expected
    assert [0] * 5 in expected


def test_of_many_masks_those_that_are_none_are_told_and_harm_no_neighbour():
    rng, good = np.random.default_rng(1), rle.encode(np.eye(9))
    codes = [{"size": [9, 9], "counts": "".join(chr(c) for c in rng.integers(33, 126, rng.integers(0, 20)))} for _ in range(500)]
    odd = ["", "p1", "1\u0021", "oooooooooo0", "OOOOOOOO", "1M1", good["counts"] + "1", good["counts"][:-1]]
    codes += [{"size": [9, 9], "counts": text} for text in odd] + [{**good, "size": s} for s in ([8, 9], [0, 9], [-9, -9])]
    codes = [c for bad in codes for c in (bad, good)]
    found = _together(codes)
    assert (found[1::2] == [*rle.box(good), 9]).all()
    for code, measured in zip(codes, found.tolist(), strict=True):
        try:
            box, area = rle.measure(code)
        except rle.RegionError:
            box, area = (0, 0, 0, 0), 0
        assert measured == [*box, area]
    assert _together([]).shape == (0, 5)


@pytest.mark.parametrize("size", [1, 3, 8, 16, 40])
def test_many_masks_sampled_at_once_are_those_sampled_one_by_one(size):
    """Smaller than the image, as large, and larger, where columns are asked for twice."""
    rng = np.random.default_rng(size)
    for _ in range(60):
        height, width = (int(n) for n in rng.integers(1, 24, 2))
        codes = [rle.encode(rng.random((height, width)) < rng.choice([0.03, 0.5, 1])) for _ in range(rng.integers(1, 7))]
        rows, columns = (np.sort(rng.integers(0, n, size)) if n < size else np.arange(size) * n // size for n in (height, width))
        found = sample_all(height, width, [c["counts"] for c in codes], rows, columns)
        np.testing.assert_array_equal(found, np.stack([rle.sample(c, rows, columns) for c in codes]))
    assert sample_all(4, 5, [], np.arange(3), np.arange(2)).shape == (0, 3, 2)


@pytest.mark.parametrize("bad", ["", "p1", "1M1", "ooooooooo0"])
def test_a_mask_that_is_none_is_refused_among_others(bad):
    good = rle.encode(np.eye(9))["counts"]
    with pytest.raises(rle.RegionError, match="malformed RLE counts"):
        sample_all(9, 9, [good, bad, good], np.arange(9), np.arange(9))


def test_the_masks_of_an_image_measured_at_once_are_those_measured_one_by_one():
    """Those with a run of no pixels, too."""
    rng = np.random.default_rng(2)
    for _ in range(60):
        height, width = (int(n) for n in rng.integers(2, 24, 2))
        masks = rng.random((rng.integers(1, 7), height, width)) < rng.choice([0.03, 0.5, 1])
        masks[:, 0, 0] = True
        counts = [rle.encode(mask)["counts"] for mask in masks]
        for some in (counts, [*counts, counts[0]]):
            measured = [rle.measure({"size": [height, width], "counts": text}) for text in some]
            assert measure_edges(height, width, some, edges_of(height, width, some)).tolist() == [[*box, area] for box, area in measured]
    some = ["1014", rle.encode(np.ones((2, 3)))["counts"]]
    assert measure_edges(2, 3, some, edges_of(2, 3, some)).tolist() == [[1, 0, 2, 2, 4], [0, 0, 3, 2, 6]]
    assert measure_edges(2, 3, [], edges_of(2, 3, [])).shape == (0, 5)


@pytest.mark.parametrize("bad", ["", "p1", "ooooooooo0", rle.encode(np.zeros((9, 9)))["counts"]])
def test_a_mask_that_is_none_or_empty_is_not_measured_among_others(bad):
    good = rle.encode(np.eye(9))["counts"]
    with pytest.raises(rle.RegionError, match=r"malformed RLE counts|an empty region has no box"):
        measure_edges(9, 9, [good, bad, good], edges_of(9, 9, [good, bad, good]))
