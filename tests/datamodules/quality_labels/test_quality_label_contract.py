"""What every quality label promises; plugins are found on disk, so that a new one is tested without an edit here."""

from __future__ import annotations

import numpy as np
import pytest

from datamodules.distortions.base import DISTORTIONS, SETTINGS
from datamodules.quality_labels.base import QUALITY_LABELS, QualityLabel, check_sizes

BLUR = DISTORTIONS.build({"plugin": "blur"})


@pytest.fixture(params=QUALITY_LABELS.names())
def label(request):
    try:
        return QUALITY_LABELS.build({"plugin": request.param, **QUALITY_LABELS.get(request.param).tiny()})
    except ImportError as error:
        pytest.skip(str(error))


def masks_of(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Two random boxes, scattered pixels, one pixel, one corner pixel, one row, the left border, and all: (8, height, width)."""
    masks = np.zeros((8, height, width), bool)
    for mask in masks[:2]:
        top, left = rng.integers(height), rng.integers(width)
        mask[top : top + rng.integers(1, height + 1), left : left + rng.integers(1, width + 1)] = True
    masks[2] = rng.random((height, width)) < 0.1
    masks[2, height // 2, width // 2] = True
    masks[3, rng.integers(height), rng.integers(width)] = True
    masks[4, -1, -1] = True
    masks[5, rng.integers(height)] = True
    masks[6, :, 0] = True
    masks[7] = True
    return masks


def test_the_plugins_are_on_disk():
    assert "local_similarity" in QUALITY_LABELS.names()


def test_version_and_licence_are_said(label):
    assert label.version
    assert label.licence


def test_the_reference_itself_scores_one(label, photograph):
    masks = masks_of(*photograph.shape[:2], np.random.default_rng(0))
    assert label.image(photograph, photograph) == pytest.approx(1, abs=1e-5)
    assert label.region(photograph, photograph, masks[0]) == pytest.approx(1, abs=1e-5)
    quality, impact = label.label(photograph, photograph, masks)
    np.testing.assert_allclose(quality, 1, atol=1e-5)
    np.testing.assert_allclose(impact, 0, atol=1e-5)


@pytest.mark.parametrize("name", DISTORTIONS.names())
def test_scores_are_in_range(label, photograph, name):
    distortion = DISTORTIONS.build({"plugin": name})
    masks = masks_of(*photograph.shape[:2], np.random.default_rng(1))[:4]
    for setting in range(3, SETTINGS, 4):
        scores = np.stack(label.label(distortion(photograph, setting), photograph, masks))
        assert scores.shape == (2, 4)
        assert (scores > -1e-6).all()
        assert (scores < 1 + 1e-6).all()


@pytest.mark.parametrize("size", [(64, 64), (61, 37), (5, 90), (16, 17), (3, 3), (1, 8)])
@pytest.mark.parametrize("name", ["blur", "contrast", "noise"])
def test_label_is_the_contracts_definition(label, photograph, name, size):
    reference = photograph[: size[0], : size[1]]
    distorted = DISTORTIONS.build({"plugin": name})(reference, 14)
    masks = masks_of(*size, np.random.default_rng(sum(size)))
    quality, impact = label.label(distorted, reference, masks)
    slow_quality, slow_impact = QualityLabel.label(label, distorted, reference, masks)
    exact = isinstance(label, QUALITY_LABELS.get("local_similarity"))  # a network's floats may differ more
    np.testing.assert_allclose(quality, slow_quality, atol=1e-6)
    np.testing.assert_allclose(impact, slow_impact, rtol=0 if exact else 1e-3, atol=1e-6 if exact else 2e-6)
    np.testing.assert_allclose(impact[-1], slow_impact[-1], atol=1e-6)  # the whole image


@pytest.mark.parametrize("size", [(64, 64), (61, 37), (5, 90), (16, 17), (3, 3), (1, 8)])
@pytest.mark.parametrize("name", ["blur", "colorfulness", "contrast", "noise"])
def test_against_one_reference_it_is_the_contracts_definition(label, photograph, name, size):
    reference = photograph[: size[0], : size[1]]
    masks = masks_of(*size, np.random.default_rng(sum(size)))
    judged = label.against(reference, masks)
    for setting in (2, 13):
        distorted = DISTORTIONS.build({"plugin": name})(reference, setting)
        np.testing.assert_allclose(judged(distorted), QualityLabel.label(label, distorted, reference, masks), atol=1e-6)


def test_random_regions_that_overlap_and_touch_the_border_cost_no_full_comparison_and_lose_nothing(label, photograph):
    """To 1e-6 what comparing the whole image for each region gives, for discs, strips and scattered pixels on odd sizes."""
    rng = np.random.default_rng(0)
    for _ in range(8):
        height, width = rng.integers(20, 96, 2)
        reference = photograph[:height, :width]
        y, x = np.mgrid[:height, :width]
        masks = np.zeros((9, height, width), bool)
        for mask in masks[:6]:
            mask[:] = (y - rng.integers(-5, height + 5)) ** 2 + (x - rng.integers(-5, width + 5)) ** 2 < rng.integers(2, 50) ** 2
        masks[6] = rng.random((height, width)) < 0.05
        masks[7, -1] = masks[8, :, -3:] = True
        masks = masks[masks.any((1, 2))]
        distorted = DISTORTIONS.build({"plugin": str(rng.choice(DISTORTIONS.names()))})(reference, int(rng.integers(SETTINGS)))
        expected = QualityLabel.label(label, distorted, reference, masks)
        np.testing.assert_allclose(label.against(reference, masks)(distorted), expected, atol=1e-6)
        np.testing.assert_allclose(label.label(distorted, reference, masks), expected, atol=1e-6)


def test_against_refuses_what_label_refuses(label, photograph):
    masks = masks_of(*photograph.shape[:2], np.random.default_rng(0))[:2]
    judged = label.against(photograph, masks)
    with pytest.raises(ValueError, match="all need the same height and width"):
        judged(photograph[1:])
    masks = masks.copy()
    masks[1] = False
    with pytest.raises(ValueError, match="region 1 has no pixel to judge"):
        label.against(photograph, masks)


def test_regions_are_judged_one_by_one(label, photograph):
    masks = masks_of(*photograph.shape[:2], np.random.default_rng(2))
    distorted = BLUR(photograph, 12)
    together = np.stack(label.label(distorted, photograph, masks))
    for r in np.random.default_rng(0).permutation(len(masks)):
        np.testing.assert_array_equal(np.stack(label.label(distorted, photograph, masks[[r]]))[:, 0], together[:, r])


def test_distortions_elsewhere_do_not_count(label, photograph):
    mask = np.zeros((1, *photograph.shape[:2]), bool)
    mask[0, 20:60, 30:70] = True
    distorted = BLUR(photograph, 8)
    worse = np.where(mask[0, ..., None], distorted, 255 - photograph)
    np.testing.assert_array_equal(np.stack(label.label(worse, photograph, mask)), np.stack(label.label(distorted, photograph, mask)))


def test_a_larger_part_of_a_region_has_more_impact(label, photograph):
    masks = np.zeros((3, *photograph.shape[:2]), bool)
    for mask, side in zip(masks, (10, 30, 60), strict=True):
        mask[15 : 15 + side, 15 : 15 + side] = True
    assert (np.diff(label.label(BLUR(photograph, 12), photograph, masks)[1]) > 0).all()


def test_inputs_are_left_as_they_were(label, photograph):
    distorted, masks = BLUR(photograph, 8), masks_of(*photograph.shape[:2], np.random.default_rng(3))
    for array in (distorted, masks):
        array.setflags(write=False)
    label.label(distorted, photograph, masks)
    label.region(distorted, photograph, masks[0])


def test_no_regions_no_labels(label, photograph):
    assert np.stack(label.label(photograph, photograph, np.zeros((0, *photograph.shape[:2]), bool))).shape == (2, 0)


def test_sizes_that_do_not_agree_are_refused(label, photograph):
    masks = np.ones((1, *photograph.shape[:2]), bool)
    for distorted, m in ((photograph[1:], masks), (photograph, masks[:, 1:])):
        with pytest.raises(ValueError, match="all need the same height and width"):
            label.label(distorted, photograph, m)
        with pytest.raises(ValueError, match="all need the same height and width"):
            label.region(distorted, photograph, m[0])
    with pytest.raises(ValueError, match="all need the same height and width"):
        label.image(photograph[1:], photograph)


def test_an_empty_region_is_refused(label, photograph):
    masks = masks_of(*photograph.shape[:2], np.random.default_rng(0))[:2]
    masks[1] = False
    with pytest.raises(ValueError, match="region 1 has no pixel to judge"):
        label.label(photograph, photograph, masks)
    with pytest.raises(ValueError, match="region 0 has no pixel to judge"):
        label.region(photograph, photograph, masks[1])


def test_the_contracts_own_label_refuses_the_same():
    image = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match="region 0 has no pixel to judge"):
        check_sizes(image, image, np.zeros((1, 4, 4), bool))
