from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
from pycocotools import mask as coco

from components import rle
from components.mask_encoders import base


def random_masks(count: int = 60):
    """Random masks of random sizes: empty, full, speckled, one rectangle, one pixel."""
    rng = np.random.default_rng(0)
    for n in range(count):
        height, width = rng.integers(1, 30, 2)
        mask = rng.random((height, width)) < (0.0, 1.0, 0.02, 0.5)[n % 4]
        if n % 3 == 0:
            mask[:] = False
            mask[rng.integers(height) :, rng.integers(width) :] = True
        if n % 7 == 0:
            mask[:] = False
            mask[rng.integers(height), rng.integers(width)] = True
        yield mask


def test_decode_inverts_encode():
    for mask in random_masks():
        decoded = rle.decode(json.loads(json.dumps(rle.encode(mask))))
        assert decoded.dtype == np.bool_
        assert decoded.flags.c_contiguous
        np.testing.assert_array_equal(decoded, mask)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools under NumPy 2
def test_agrees_with_pycocotools():
    for mask in random_masks():
        code = rle.encode(mask)
        np.testing.assert_array_equal(rle.decode(code), coco.decode(code))
        assert rle.area(code) == coco.area(code) == mask.sum()
        if mask.any():
            assert rle.box(code) == tuple(coco.toBbox(code))


def test_a_sample_is_what_the_decoded_mask_has_there():
    """Fewer pixels than the mask, more, all of one column, some twice."""
    rng = np.random.default_rng(1)
    for n, mask in enumerate(random_masks(300)):
        height, width = mask.shape
        wanted = (1, 5, 64)[n % 3]
        rows, columns = (np.arange(wanted) * side // wanted for side in (height, width))
        if n % 2:
            rows, columns = (np.sort(rng.integers(0, side, rng.integers(1, 20))) for side in (height, width))
        found = rle.sample(rle.encode(mask), rows, columns)
        assert found.dtype == np.bool_
        np.testing.assert_array_equal(found, mask[rows][:, columns])


def test_a_sample_of_runs_of_no_pixels():
    for counts in ([0, 0, 0, 6], [2, 0, 0, 4], [6, 0], [0, 2, 0, 2, 2]):
        code = {"size": [2, 3], "counts": counts}
        np.testing.assert_array_equal(rle.sample(code, np.arange(2), np.arange(3)), rle.decode(code))


def test_bytes_and_uncompressed_counts_mean_the_same():
    code = rle.encode(np.eye(4))
    uncompressed = {"size": [4, 4], "counts": [0, 1, 4, 1, 4, 1, 4, 1]}
    for other in (
        uncompressed,
        code | {"counts": code["counts"].encode()},
        uncompressed | {"counts": tuple(np.array(uncompressed["counts"]))},
    ):
        np.testing.assert_array_equal(rle.decode(other), np.eye(4))
        assert rle.area(other) == 4
        assert rle.box(other) == (0, 0, 4, 4)


def test_size_is_height_then_width():
    assert rle.size(rle.encode(np.zeros((3, 5)))) == (3, 5)


def test_runs_of_no_pixels_are_legal():
    code = {"size": [2, 3], "counts": [1, 0, 2, 1, 0, 0, 2]}
    assert rle.area(code) == 1
    assert rle.box(code) == (1, 1, 1, 1)


def test_any_nonzero_value_is_inside():
    np.testing.assert_array_equal(rle.decode(rle.encode(np.array([[0.0, 0.5], [-1.0, 255.0]]))), [[False, True], [True, True]])


def test_an_empty_region_has_area_but_no_box():
    code = rle.encode(np.zeros((3, 4)))
    assert rle.area(code) == 0
    with pytest.raises(rle.RegionError, match="an empty region has no box"):
        rle.box(code)


@pytest.mark.parametrize("shape", [(4,), (2, 2, 1), (0, 5)])
def test_encode_refuses_what_is_no_mask(shape):
    with pytest.raises(rle.RegionError, match=r"a mask to encode is \(height, width\)"):
        rle.encode(np.zeros(shape))


@pytest.mark.parametrize("code", [None, [3, 4], {"counts": "1"}, {"size": [1, 1]}])
def test_what_is_no_rle_is_refused(code):
    with pytest.raises(rle.RegionError, match="an RLE is a mapping with 'size' and 'counts'"):
        rle.decode(code)


@pytest.mark.parametrize("size", [4, [4], [4, 0], [4, -4], [4.0, 4.0], ["4", "4"], [True, True], [2**40, 1]])
def test_a_malformed_size_is_refused(size):
    with pytest.raises(rle.RegionError, match="two positive integers"):
        rle.decode({"size": size, "counts": [16]})


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (None, "a string or a list of integers"),
        (3, "a string or a list of integers"),
        ([1.5, 14.5], "a string or a list of integers"),
        ([-1, 17], "run 0 is -1 pixels long"),
        ([4, 4], "sum to 8 pixels, size 4 x 4 has 16"),
        ([], "sum to 0 pixels, size 4 x 4 has 16"),
        ([10**9] * 3, "sum to 3000000000 pixels"),
        ("", "characters lie between '0' and 'o'"),
        ("hello world", "characters lie between '0' and 'o'"),
        ("ünläsbar", "characters lie between '0' and 'o'"),
        (b"\x00\xff", "characters lie between '0' and 'o'"),
        ("`", "stops in the middle of a number"),
        ("o" * 50 + "0", "a number of 51 characters, at most 7 make sense"),
        ("@", "is -16 pixels long"),
    ],
)
@pytest.mark.parametrize("function", [rle.decode, rle.area, rle.box, lambda code: rle.sample(code, np.arange(4), np.arange(4))])
def test_malformed_counts_are_refused(function, counts, message):
    with pytest.raises(rle.RegionError, match=message):
        function({"size": [4, 4], "counts": counts})


def test_random_text_never_crashes():
    rng = np.random.default_rng(1)
    for _ in range(300):
        counts = "".join(map(chr, rng.integers(40, 120, rng.integers(0, 12))))
        with contextlib.suppress(rle.RegionError):
            assert rle.decode({"size": [5, 6], "counts": counts}).shape == (5, 6)


def test_long_values_are_cut_in_messages():
    with pytest.raises(rle.RegionError, match=r"\.\.\.$"):
        rle.decode({"size": [1, 1], "counts": "!" * 1000})


def test_one_region_error():
    assert base.RegionError is rle.RegionError
    assert issubclass(rle.RegionError, ValueError)


@pytest.mark.parametrize("seed", range(40))
def test_it_is_the_code_of_pycocotools(seed):
    """To the byte, for sparse and full masks, of whole columns too."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 12, 2)
    mask = rng.random((height, width)) < rng.choice([0.02, 0.3, 0.7, 1.0])
    mask[:, rng.random(width) < 0.3] = True
    mask[:, rng.random(width) < 0.3] = False
    wanted = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    assert rle.encode(mask) == {"size": [height, width], "counts": wanted["counts"].decode()}
    assert rle.encode(mask * 3.5) == rle.encode(mask)


def test_a_rectangle_is_encoded_without_its_mask():
    for height, width in ((1, 1), (4, 5), (5, 1), (1, 6)):
        for top, left in np.ndindex(height, width):
            for bottom, right in np.ndindex(height - top, width - left):
                mask = np.zeros((height, width), bool)
                mask[top : top + bottom + 1, left : left + right + 1] = True
                assert rle.encode_rectangle((height, width), left, top, left + right + 1, top + bottom + 1) == rle.encode(mask)


def test_every_form_of_a_code_is_the_same_text():
    for mask in random_masks():
        code = rle.encode(mask)
        edges = np.flatnonzero(np.diff(np.r_[False, mask.T.ravel()])).tolist()
        counts = np.diff([0, *edges, mask.size]).tolist()
        for same in (code, {**code, "counts": code["counts"].encode()}, {**code, "counts": counts}):
            assert rle.as_text(same) == code
    with pytest.raises(rle.RegionError, match="they sum to 3 pixels"):
        rle.as_text({"size": [2, 2], "counts": [1, 2]})


def test_a_mask_is_encoded_enlarged_without_the_large_one():
    rng = np.random.default_rng(1)
    for mask in random_masks():
        height, width = (int(side + rng.integers(0, 3 * side + 1)) for side in mask.shape)
        rows, columns = (np.arange(large) * small // large for large, small in zip((height, width), mask.shape, strict=True))
        assert rle.encode_enlarged(mask, (height, width)) == rle.encode(mask[rows][:, columns])
