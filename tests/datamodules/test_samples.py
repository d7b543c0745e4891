from __future__ import annotations

import numpy as np
import pytest
import torch

from components import rle
from components.preprocess import mask_boxes, prepare_masks
from components.rle import RegionError
from datamodules.records import ImageRecord, RegionRecord
from datamodules.samples import RoiSample

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
MASK = np.zeros((6, 9), bool)
MASK[2:5, 1:7] = True


def sample_of(*regions: RegionRecord) -> RoiSample:
    return RoiSample.of(PIXELS, ImageRecord("photo", "scene", "train", 6, 9, regions))


def region(name: str = "r") -> RegionRecord:
    return RegionRecord(name, rle.encode(MASK)["counts"])


def test_a_sample_has_the_pixels_and_the_masks():
    sample = sample_of(region(), region("other"))
    assert sample.image.shape == (3, 6, 9)
    assert sample.image.dtype == torch.uint8
    np.testing.assert_array_equal(sample.image.permute(1, 2, 0).numpy(), PIXELS)
    assert sample.masks().dtype == torch.bool
    np.testing.assert_array_equal(sample.masks().numpy(), np.stack([MASK, MASK]))


def test_no_regions_are_no_masks():
    assert sample_of().masks().shape == (0, 6, 9)


def test_a_mask_of_another_size_is_refused():
    other = RegionRecord("r", rle.encode(np.ones((5, 5)))["counts"])
    with pytest.raises(RegionError, match="they sum to 25 pixels, size 6 x 9 has 54"):
        sample_of(other).masks()


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
    sample = sample_of()
    assert (sample.boxes().shape, sample.areas().shape, sample.masks_at(4).shape) == ((0, 4), (0,), (0, 4, 4))


def test_an_image_of_another_size_than_its_record_is_refused():
    with pytest.raises(ValueError, match=r"image photo has 8 x 6 pixels .* its record and its masks 9 x 6: correct the record"):
        RoiSample(torch.zeros(3, 6, 8, dtype=torch.uint8), sample_of().record)
