from __future__ import annotations

import numpy as np
import pytest
import torch

from components import rle
from components.preprocess import mask_boxes, prepare_masks
from components.rle import RegionError
from datamodules.records import UNIT, ImageRecord, RegionRecord, RoiSample, Scale, encode_png

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
MASK = np.zeros((6, 9), bool)
MASK[2:5, 1:7] = True
MOS, RANK = Scale(1, 5), Scale(0, 100, "lower")


def record(name: str = "photo", *regions: RegionRecord) -> ImageRecord:
    return ImageRecord(name, "scene", "train", 6, 9, regions, encode_png(PIXELS))


def region(name: str = "r", **known) -> RegionRecord:
    return RegionRecord(name, rle.encode(MASK)["counts"], **known)


def test_a_sample_has_the_pixels_and_the_masks():
    sample = record("a", region(), region("other")).sample()
    assert sample.image.shape == (3, 6, 9)
    assert sample.image.dtype == torch.uint8
    np.testing.assert_array_equal(sample.image.permute(1, 2, 0).numpy(), PIXELS)
    assert sample.masks().dtype == torch.bool
    np.testing.assert_array_equal(sample.masks().numpy(), np.stack([MASK, MASK]))


def test_boxes_and_areas_of_all_regions_and_which_has_none():
    measured = record("a", region(), region("other")).measured()
    assert [(r.box, r.area) for r in measured.regions] == [((1, 2, 6, 3), 18)] * 2
    with pytest.raises(RegionError, match=r"image a, region odd: "):
        record("a", region(), RegionRecord("odd", "not a mask")).measured()


def test_no_regions_are_no_masks():
    assert record().sample().masks().shape == (0, 6, 9)


def test_a_mask_of_another_size_is_refused():
    other = RegionRecord("r", rle.encode(np.ones((5, 5)))["counts"])
    with pytest.raises(RegionError, match="they sum to 25 pixels, size 6 x 9 has 54"):
        record("a", other).sample().masks()


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


def varied(height: int, width: int) -> RoiSample:
    """A region in a corner, one of one pixel, and a speckled one."""
    rng = np.random.default_rng(height)
    masks = np.zeros((3, height, width), bool)
    masks[0, : height // 2, : width // 3] = True
    masks[1, height - 1, width // 2] = True
    masks[2] = rng.random((height, width)) < 0.3
    regions = tuple(RegionRecord(str(i), rle.encode(m)["counts"]) for i, m in enumerate(masks))
    image = torch.from_numpy(rng.integers(0, 256, (3, height, width), dtype=np.uint8))
    return RoiSample(image, ImageRecord("a", "s", "train", height, width, regions))


@pytest.mark.parametrize("turn", range(8))
@pytest.mark.parametrize("size", [1, 7, 16, 40])
def test_masks_at_a_size_are_those_of_the_image_brought_to_it(size, turn):
    for height, width in ((13, 29), (29, 13), (16, 16)):
        sample = varied(height, width).turned(turn)
        assert torch.equal(sample.masks_at(size), prepare_masks(sample.masks(), size))


@pytest.mark.parametrize("turn", range(8))
def test_boxes_and_areas_are_those_of_the_masks(turn):
    sample = varied(13, 29).turned(turn)
    assert torch.equal(sample.boxes(), mask_boxes(sample.masks()))
    assert torch.equal(sample.areas(), sample.masks().sum((1, 2)))


def test_no_regions_have_no_boxes():
    sample = record().sample()
    assert (sample.boxes().shape, sample.areas().shape, sample.masks_at(4).shape) == ((0, 4), (0,), (0, 4, 4))


def test_an_image_of_another_size_than_its_record_is_refused():
    with pytest.raises(ValueError, match=r"image photo has 8 x 6 pixels .* its record and its masks 9 x 6: correct the record"):
        RoiSample(torch.zeros(3, 6, 8, dtype=torch.uint8), record())
