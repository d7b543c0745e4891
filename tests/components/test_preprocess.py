import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from components.outline import Outline
from components.preprocess import (
    Preprocess,
    crop_regions,
    cut_box,
    mask_boxes,
    own_pixels,
    prepare_image,
    prepare_masks,
    prepare_regions,
    stack,
)

CLIP = Preprocess(size=64, mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711))
PLAIN = Preprocess(size=16, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def photograph(height, width, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (3, height, width), dtype=np.uint8))


def five_steps(image, side, preprocess):
    """Facts 1.10 in PIL, numpy and torch: shorter side to `side`, 1/255, normalise, no crop, squash."""
    height, width = image.shape[-2:]
    short, long = min(height, width), max(height, width)
    target = (int(side * long / short), side) if width > height else (side, int(side * long / short))
    resized = np.asarray(Image.fromarray(image.permute(1, 2, 0).numpy()).resize(target, Image.Resampling.BICUBIC))
    unit = (resized.astype(np.float64) * (1 / 255)).astype(np.float32)
    normal = (unit - np.array(preprocess.mean, np.float32)) / np.array(preprocess.std, np.float32)
    batch = torch.from_numpy(normal.transpose(2, 0, 1))[None]
    return F.interpolate(batch, size=(side, side), mode="bilinear", align_corners=False)[0]


@pytest.mark.parametrize(("height", "width"), [(120, 200), (200, 120), (64, 64), (97, 97), (40, 53), (64, 90), (512, 768)])
def test_the_released_pipeline(height, width):
    image = photograph(height, width)
    ours = prepare_image(image, CLIP)
    assert ours.shape == (3, 64, 64)
    assert torch.equal(ours, five_steps(image, 64, CLIP))


@pytest.mark.parametrize(("height", "width"), [(120, 200), (200, 120), (40, 64), (3, 90), (1, 1)])
def test_a_rectangle_is_one_resize(height, width):
    """Facts A8: PIL to width x height, whatever the proportions, then normalised."""
    image = photograph(height, width)
    resized = np.asarray(Image.fromarray(image.permute(1, 2, 0).numpy()).resize((64, 40), Image.Resampling.BICUBIC))
    expected = (torch.from_numpy(resized.copy()).permute(2, 0, 1) / 255 - torch.tensor(CLIP.mean)[:, None, None]) / torch.tensor(CLIP.std)[
        :, None, None
    ]
    found = prepare_image(image, CLIP, (40, 64))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    masks = torch.ones(1, height, width, dtype=torch.bool)
    assert torch.equal(prepare_regions(image, masks, CLIP, (40, 64)).crops[0], found)


ONE = dataclasses.replace(CLIP, resizes="one")
NATIVE = dataclasses.replace(CLIP, native=True)


@pytest.mark.parametrize(("height", "width"), [(120, 200), (60, 600), (64, 64), (3, 90), (1, 4000)])
def test_a_square_may_be_one_resize_too(height, width):
    """Facts A8: PIL straight to 512 x 512, as for a rectangle."""
    image = photograph(height, width)
    assert torch.equal(prepare_image(image, ONE), prepare_image(image, CLIP, (64, 64)))
    masks = torch.ones(1, height, width, dtype=torch.bool)
    assert torch.equal(prepare_regions(image, masks, ONE, 32).crops[0], prepare_image(image, CLIP, (32, 32)))


def test_one_resize_lets_no_noise_of_a_long_region_through():
    """The mean of ten pixels of noise has a third of their spread; ten that are squashed by plain sampling keep more than half of it."""
    noise = photograph(100, 1000)
    plain = dataclasses.replace(CLIP, size=100, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    unit = float((noise / 255).std())
    assert prepare_image(noise, plain).std() > 0.6 * unit
    assert prepare_image(noise, dataclasses.replace(plain, resizes="one")).std() < 0.4 * unit


def test_a_constant_image_stays_constant():
    image = torch.tensor([0, 51, 255], dtype=torch.uint8)[:, None, None].expand(3, 30, 47)
    expected = torch.tensor([0.0, 0.2, 1.0])[:, None, None].expand(3, 16, 16)
    torch.testing.assert_close(prepare_image(image, PLAIN), expected)


def test_an_image_of_the_right_size_is_only_normalised():
    image = photograph(64, 64)
    expected = (image.float() / 255 - torch.tensor(CLIP.mean)[:, None, None]) / torch.tensor(CLIP.std)[:, None, None]
    torch.testing.assert_close(prepare_image(image, CLIP), expected)


def test_interpolation_is_the_encoders():
    image = photograph(120, 200)
    bilinear = prepare_image(image, Preprocess(64, CLIP.mean, CLIP.std, "bilinear"))
    assert not torch.equal(bilinear, prepare_image(image, CLIP))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40), (40, 1), (3, 40), (2, 2)])
def test_the_smallest_regions_have_a_crop(height, width):
    """The reference fails on crops 1 pixel thin and transposes those 3 pixels high (facts 1.10)."""
    image = photograph(50, 60)
    masks = torch.zeros(1, 50, 60, dtype=torch.bool)
    masks[0, 5 : 5 + height, 7 : 7 + width] = True
    regions = prepare_regions(image, masks, PLAIN, crop_size=32)
    assert torch.equal(regions.crops[0], prepare_image(image[:, 5 : 5 + height, 7 : 7 + width], PLAIN, 32))
    assert regions.crops.isfinite().all()
    torch.testing.assert_close(regions.boxes[0], torch.tensor([7 / 60, 5 / 50, width / 60, height / 50]))
    assert regions.areas[0].item() == pytest.approx(height * width / 3000)


@pytest.mark.parametrize("size", [None, (8, 9)])
def test_an_image_without_pixels_is_refused(size):
    with pytest.raises(ValueError, match="an image of 0 x 5 pixels has nothing to look at"):
        prepare_image(torch.zeros(3, 5, 0, dtype=torch.uint8), PLAIN, size)


@pytest.mark.parametrize(("height", "width"), [(100, 37), (512, 768), (16, 16), (5, 3)])
def test_masks_take_the_nearest_pixel_to_the_upper_left(height, width):
    masks = torch.from_numpy(np.random.default_rng(1).random((2, height, width)) > 0.5)
    small = prepare_masks(masks, 16)
    assert (small.shape, small.dtype) == ((2, 16, 16), torch.bool)
    for row, column in [(0, 0), (3, 11), (15, 15), (8, 1)]:
        source = masks[:, min(row * height // 16, height - 1), min(column * width // 16, width - 1)]
        assert torch.equal(small[:, row, column], source)


def test_boxes_include_their_edges():
    masks = torch.zeros(2, 10, 20, dtype=torch.bool)
    masks[0, 2:5, 3:9] = True
    masks[1, 9, 19] = True
    assert mask_boxes(masks).tolist() == [[3, 2, 6, 3], [19, 9, 1, 1]]
    assert mask_boxes(masks[:0]).shape == (0, 4)


def test_an_empty_region_is_refused():
    masks = torch.ones(2, 8, 8, dtype=torch.bool)
    masks[1] = False
    with pytest.raises(ValueError, match="region 1 is empty: no pixel of its mask is set"):
        prepare_regions(photograph(8, 8), masks, PLAIN, crop_size=0)


@pytest.mark.parametrize("masks", [torch.ones(8, 8, dtype=torch.bool), torch.ones(1, 8, 8)])
def test_masks_are_a_boolean_stack(masks):
    with pytest.raises(ValueError, match=r"masks must be \(R, H, W\) bool, got"):
        mask_boxes(masks)


def test_masks_must_have_the_images_size():
    with pytest.raises(ValueError, match=r"masks are \(8, 9\) but the image is \(8, 8\)"):
        prepare_regions(photograph(8, 8), torch.ones(1, 8, 9, dtype=torch.bool), PLAIN, crop_size=0)


def test_a_model_without_crops_gets_none():
    regions = prepare_regions(photograph(8, 8), torch.ones(2, 8, 8, dtype=torch.bool), PLAIN, crop_size=0)
    assert regions.crops.shape == (2, 3, 0, 0)


def test_stacking_pads_the_regions():
    images = [photograph(20, 30), photograph(30, 20)]
    parts = [
        prepare_regions(image, torch.ones(count, *image.shape[-2:], dtype=torch.bool), PLAIN, crop_size=8)
        for image, count in zip(images, (1, 3), strict=True)
    ]
    batch = stack([prepare_image(image, PLAIN) for image in images], parts)
    assert batch.images.shape == (2, 3, 16, 16)
    assert batch.regions.masks.shape == (2, 3, 16, 16)
    assert batch.regions.valid.tolist() == [[True, False, False], [True, True, True]]
    assert batch.regions.areas.tolist() == [[1, 0, 0], [1, 1, 1]]


@pytest.mark.parametrize(("height", "width"), [(1, 60_000), (60_000, 1)])
def test_a_slender_region_does_not_become_an_enormous_image(height, width):
    """Resized by its shorter side first, as other regions are, it would have 64 x 3,840,000 pixels."""
    ramp = torch.linspace(0, 255, height * width).to(torch.uint8).view(1, height, width).expand(3, -1, -1)
    x = prepare_image(ramp, Preprocess(64, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
    assert x.shape == (3, 64, 64)
    along = x[0].mean(0 if width > 1 else 1)
    torch.testing.assert_close(along, torch.linspace(0.5 / 64, 1 - 0.5 / 64, 64), atol=5e-3, rtol=0)


def test_with_an_outline_a_crop_is_the_whole_picture_with_the_box_drawn_on_it():
    drawing = dataclasses.replace(CLIP, outline=Outline((1.0, 0.0, 0.0), 0.125))
    image, masks = photograph(96, 160), torch.zeros(2, 96, 160, dtype=torch.bool)
    masks[0, 24:72, 40:120] = masks[1, 0:48, 0:40] = True  # at 32 pixels: rows 8 to 23, columns 8 to 23; rows 0 to 15, columns 0 to 7
    regions, picture = prepare_regions(image, masks, drawing, 32), prepare_image(image, CLIP, 32)
    frame = torch.zeros(2, 32, 32, dtype=torch.bool)
    frame[0, 8:24, 8:24] = frame[1, :16, :8] = True  # the second is as narrow as two lines: filled
    frame[0, 12:20, 12:20] = False
    red = ((torch.tensor([1.0, 0.0, 0.0]) - torch.tensor(CLIP.mean)) / torch.tensor(CLIP.std))[:, None]
    for crop, ink in zip(regions.crops, frame, strict=True):
        assert torch.equal(crop[:, ~ink], picture[:, ~ink])
        torch.testing.assert_close(crop[:, ink], red.expand(3, int(ink.sum())), rtol=0, atol=1e-5)
    plain = prepare_regions(image, masks, CLIP, 32)
    assert torch.equal(regions.boxes, plain.boxes)
    assert torch.equal(regions.masks, plain.masks)
    assert prepare_regions(image, masks[:0], drawing, 32).crops.shape == (0, 3, 32, 32)


def test_what_is_written_of_it_names_outline_resizes_and_native_only_where_they_are_not_the_first_ones():
    """Models that were written before there was a choice are read as before."""
    assert CLIP.told() == {k: v for k, v in vars(CLIP).items() if k not in ("outline", "resizes", "native")}
    assert ONE.told() == {**CLIP.told(), "resizes": "one"}
    assert NATIVE.told() == {**CLIP.told(), "native": True}
    told = dataclasses.replace(CLIP, outline=Outline((1.0, 0.0, 0.0), 0.01)).told()
    assert told["outline"] == {"colour": (1.0, 0.0, 0.0), "line": 0.01}


def test_a_native_region_is_its_box_of_the_image_to_the_pixel():
    image = photograph(50, 70)
    masks = torch.zeros(3, 50, 70, dtype=torch.bool)
    masks[0, 10:40, 20:51] = masks[1, 7, 69] = masks[2] = True
    regions = prepare_regions(image, masks, NATIVE, 0)
    assert regions.crops.shape == (3, 3, 0, 0)
    wanted = (image[:, 10:40, 20:51], image[:, 7:8, 69:70], image)
    assert all(torch.equal(cut_box(image, place), crop) for place, crop in zip(regions.boxes, wanted, strict=True))
    assert own_pixels([image], NATIVE)[0] is image
    assert own_pixels([image], CLIP) == ()


@pytest.mark.parametrize("side", [7, 4099, 99_991, 1_000_003])
def test_fractions_of_a_large_image_say_its_pixels(side):
    """A row or a column whose pixels are all unlike: what is cut begins and ends where the box does."""
    low, high = np.sort(np.random.default_rng(side).integers(0, side, (2, 200)), 0)
    ones, zeros = np.ones_like(low), np.zeros_like(low)
    line = torch.arange(side)
    for image, boxes in (
        (line[None, None].expand(3, 1, side), np.stack([low, zeros, high - low + 1, ones], 1)),
        (line[None, :, None].expand(3, side, 1), np.stack([zeros, low, ones, high - low + 1], 1)),
    ):
        regions = crop_regions(image, torch.ones(200, 64, 64, dtype=torch.bool), torch.from_numpy(boxes), torch.ones(200), NATIVE, 0)
        for place, first, last in zip(regions.boxes, low, high, strict=True):
            assert torch.equal(cut_box(image, place)[1].flatten(), line[first : last + 1])
