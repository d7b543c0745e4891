from __future__ import annotations

import numpy as np
import pytest

from components.mask_encoders.base import Prompt
from components.mask_encoders.superpixel import Superpixel, _without_small
from components.rle import RegionError


def quadrants(side: int = 64) -> np.ndarray:
    """Four flat squares of one colour each."""
    image = np.zeros((side, side, 3), dtype=np.uint8)
    half = side // 2
    image[:half, half:] = (255, 0, 0)
    image[half:, :half] = (0, 255, 0)
    image[half:, half:] = (0, 0, 255)
    return image


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def assert_partition(masks: np.ndarray) -> None:
    assert (masks.sum(axis=0) == 1).all()
    assert masks.any(axis=(1, 2)).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 2), (3, 500), (500, 3), (1, 300), (700, 90), (64, 64)])
@pytest.mark.parametrize("content", ["noise", "constant", "grey"])
def test_proposals_partition_any_image(shape, content):
    image = {"noise": noise(*shape), "constant": np.full((*shape, 3), 9, np.uint8), "grey": noise(*shape)[..., :1].repeat(3, axis=2)}[
        content
    ]
    masks = Superpixel().propose(image)
    assert masks.shape[1:] == shape
    assert_partition(masks)


def test_images_are_parted_once_although_they_are_asked_about_in_turns(monkeypatch):
    from components.mask_encoders import superpixel as module

    parted = []
    monkeypatch.setattr(module, "slic", lambda *given, slic=module.slic, **options: parted.append(1) or slic(*given, **options))
    encoder, first, second = Superpixel(segments=4), quadrants(), noise(64, 64)
    masks = encoder.propose(first)
    assert np.array_equal(encoder.forward(first.copy(), [Prompt(point=(3, 3))])[0], masks[masks[:, 3, 3].argmax()])
    assert len(parted) == 1
    other = encoder.propose(second)
    assert np.array_equal(encoder.propose(first), masks)
    assert np.array_equal(encoder.propose(second), other)
    assert len(parted) == 2


def test_patches_follow_the_colours():
    masks = Superpixel(segments=4).propose(quadrants())
    assert len(masks) == 4
    for top in (0, 32):
        for left in (0, 32):
            assert any(m.sum() == 32 * 32 and m[top : top + 32, left : left + 32].all() for m in masks)


def test_no_patch_is_smaller_than_min_area():
    image = noise(300, 200)
    for min_area in (0.01, 0.1, 0.4):
        masks = Superpixel(min_area=min_area).propose(image)
        assert masks.mean(axis=(1, 2)).min() >= min_area
        assert_partition(masks)
    assert len(Superpixel(min_area=0.9).propose(image)) == 1


@pytest.mark.parametrize(
    ("least", "expected"),
    [
        (1, ["00112", "00312", "44442"]),
        (2, ["00112", "00112", "33332"]),  # the 3 had two sides on the 1, one on the 0 and one on the 4
        (4, ["00111", "00111", "22221"]),
        (5, ["00000", "00000", "00000"]),
    ],
)
def test_small_patches_join_the_neighbour_of_the_longest_border(least, expected):
    labels = np.array([list("00112"), list("00312"), list("44442")]).astype(int)
    joined = _without_small(labels, np.ones_like(labels), least)
    np.testing.assert_array_equal(joined, np.array([list(row) for row in expected]).astype(int))


def test_a_patch_counts_the_pixels_of_the_image_behind_it():
    labels, pixels = np.array([[0, 0, 1]]), np.array([[1, 1, 10]])
    np.testing.assert_array_equal(_without_small(labels, pixels, 10), [[0, 0, 0]])
    np.testing.assert_array_equal(_without_small(labels, pixels, 2), labels)


def test_a_large_image_is_cut_like_its_small_copy():
    small = Superpixel(segments=4, side=64).propose(quadrants())
    large = Superpixel(segments=4, side=64).propose(quadrants(512))
    np.testing.assert_array_equal(small.repeat(8, axis=1).repeat(8, axis=2), large)


def test_a_point_means_the_patch_that_holds_it():
    encoder, image = Superpixel(), noise(50, 70)
    proposals = encoder.propose(image)
    for x, y in [(0, 0), (69.9, 49.9), (33.3, 20.0)]:
        mask = encoder.forward(image, [Prompt(point=(x, y))])[0]
        assert mask[int(y), int(x)]
        assert any((mask == p).all() for p in proposals)


def test_every_point_of_a_reduced_image_lies_in_its_patch():
    """What a point means is read off the reduced copy, whose pixels do not divide the image evenly."""
    encoder, image = Superpixel(segments=9, side=13), noise(37, 50)
    found = encoder.forward(image, [Prompt(point=(x + 0.5, y + 0.5)) for y in range(37) for x in range(50)])
    assert all(mask[n // 50, n % 50] for n, mask in enumerate(found))
    assert_partition(np.unique(found, axis=0))


def test_what_is_kept_of_a_large_image_is_small():
    encoder, image = Superpixel(), noise(900, 1200)
    assert encoder.seen.of(image).nbytes < image.nbytes / 50


@pytest.mark.parametrize("point", [(-0.1, 5), (70, 5), (5, 50), (5, 1e9)])
def test_a_point_outside_is_refused(point):
    with pytest.raises(RegionError, match="lies outside the image of 70 x 50 pixels"):
        Superpixel().forward(noise(50, 70), [Prompt(point=point)])


@pytest.mark.parametrize("point", [(1,), (1, float("nan"))])
def test_a_malformed_point_is_refused(point):
    with pytest.raises(RegionError, match="a point is x, y: two finite numbers"):
        Superpixel().forward(noise(50, 70), [Prompt(point=point)])


def test_a_box_means_the_patches_that_lie_in_it_by_more_than_half():
    encoder = Superpixel(segments=4)
    mask = encoder.forward(quadrants(), [Prompt(box=(0, 0, 40, 20))])[0]
    expected = np.zeros((64, 64), dtype=bool)
    expected[:32, :32] = True  # 20 of its 32 rows; its right neighbour has 8 of 32 columns
    np.testing.assert_array_equal(mask, expected)


def test_exactly_half_is_not_enough():
    with pytest.raises(RegionError, match="no superpixel lies by more than half"):
        Superpixel(segments=4).forward(quadrants(), [Prompt(box=(0, 0, 16, 32))])


def test_a_box_smaller_than_the_patches_is_refused_with_the_remedy():
    with pytest.raises(RegionError, match=r"in box \(5, 6, 3, 2\), 4 superpixels.*raise `segments`.*`given`"):
        Superpixel(segments=4).forward(quadrants(), [Prompt(box=(5, 6, 3, 2))])


def test_the_whole_image_as_a_box_is_the_whole_image():
    assert Superpixel().forward(noise(50, 70), [Prompt(box=(0, 0, 70, 50))]).all()


def test_a_box_outside_is_refused():
    with pytest.raises(RegionError, match="lies outside the image"):
        Superpixel().forward(quadrants(), [Prompt(box=(100, 0, 5, 5))])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"segments": 0}, "segments is at least 1, got 0"),
        ({"compactness": 0.0}, "compactness is above 0, got 0.0"),
        ({"min_area": 1.0}, r"min_area is a fraction of the image, in \[0, 1\), got 1.0"),
        ({"min_area": -0.1}, "min_area is a fraction"),
        ({"side": 7}, "side is at least 8 pixels, got 7"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Superpixel(**options)
