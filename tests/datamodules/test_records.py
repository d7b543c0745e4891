from __future__ import annotations

import numpy as np
import pytest

from components import rle
from components.rle import RegionError
from datamodules.records import UNIT, ImageRecord, RegionRecord, Scale, encode_png

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
MASK = np.zeros((6, 9), bool)
MASK[2:5, 1:7] = True
MOS, RANK = Scale(1, 5), Scale(0, 100, "lower")


def record(name: str = "photo", *regions: RegionRecord) -> ImageRecord:
    return ImageRecord(name, "scene", "train", 6, 9, regions, encode_png(PIXELS))


def region(name: str = "r", **known) -> RegionRecord:
    return RegionRecord(name, rle.encode(MASK)["counts"], **known)


def test_boxes_and_areas_of_all_regions_and_which_has_none():
    measured = record("a", region(), region("other")).measured()
    assert [(r.box, r.area) for r in measured.regions] == [((1, 2, 6, 3), 18)] * 2
    with pytest.raises(RegionError, match=r"image a, region odd: "):
        record("a", region(), RegionRecord("odd", "not a mask")).measured()


def test_grey_pixels_become_rgb():
    grey = ImageRecord("a", "s", "val", 6, 9, (), encode_png(PIXELS[..., 0]))
    np.testing.assert_array_equal(grey.pixels(), PIXELS[..., :1].repeat(3, -1))


@pytest.mark.parametrize("scale", [MOS, RANK])
def test_mean_and_deviation_stay_those_of_the_same_opinions(scale):
    """Rescaled opinions have the rescaled mean and the rescaled deviation, whichever end of the scale is the best."""
    opinions = scale.low + (scale.high - scale.low) * np.random.default_rng(0).random(50)
    unit = scale.unit(opinions)
    assert scale.unit(float(opinions.mean())) == pytest.approx(unit.mean())
    assert scale.unit_std(float(opinions.std())) == pytest.approx(unit.std())


def test_a_scale_and_its_inverse():
    assert (MOS.unit(1), MOS.unit(3), MOS.unit(5)) == (0, 0.5, 1)
    assert (RANK.unit(0), RANK.unit(75), RANK.unit(100)) == (1, 0.25, 0)
    assert MOS.unit_std(2) == RANK.unit_std(50) == 0.5  # a direction turns no standard deviation around
    for scale in (UNIT, MOS, RANK):
        assert scale.given(scale.unit(2.5)) == pytest.approx(2.5)
        assert scale.given_std(scale.unit_std(0.7)) == pytest.approx(0.7)


@pytest.mark.parametrize(("low", "high"), [(5, 1), (1, 1), (0, float("inf")), (float("nan"), 1)])
def test_a_scale_that_is_none(low, high):
    with pytest.raises(ValueError, match="a scale goes from a lower to a higher finite number, got"):
        Scale(low, high)


def test_a_direction_that_is_none():
    with pytest.raises(ValueError, match="'higher' \\(is better\\) or 'lower', got 'up'"):
        Scale(0, 1, "up")
