"""The crop baseline sees its crop and nothing else."""

import dataclasses

import pytest
import torch

from components.batch import Pyramid
from components.region_extractors.crop import Crop
from tests.components.region_extractors.regions import CHANNELS, SIZES, WIDTH, filled, random_pyramid

BOXES = ((8, 16, 30, 20), (0, 0, 64, 64))


def tiny(**options):
    torch.manual_seed(0)
    return Crop(CHANNELS, SIZES, WIDTH, **{**Crop.tiny(), **options}).eval()


@torch.no_grad()
def tokens_of(extractor, regions, seed=1):
    return extractor(extractor.prepare(random_pyramid(seed=seed)), regions)


def test_image_mask_and_place_play_no_part():
    extractor, regions = tiny(), filled(*BOXES, crop_size=32)
    elsewhere = dataclasses.replace(filled((0, 0, 3, 3), (9, 9, 5, 5)), crops=regions.crops)
    assert torch.equal(tokens_of(extractor, regions), tokens_of(extractor, elsewhere, seed=2))


def test_each_part_of_the_crop_has_its_token():
    """Changing the lower right corner changes the last token alone: the convolutions reach no further than a patch."""
    extractor, regions = tiny(), filled(*BOXES, crop_size=32)
    changed = dataclasses.replace(regions, crops=regions.crops.clone())
    changed.crops[..., 24:, 24:] += 1.0
    moved = (tokens_of(extractor, changed) - tokens_of(extractor, regions)).abs().amax((0, 1, 3))
    assert (moved > 1e-4).tolist() == [False, False, False, True]


def test_a_plain_crop_gives_equal_tokens_away_from_its_border():
    """The second convolution sees a border of zeros at the left and the top: the last token alone is free of it."""
    extractor, regions = tiny(), filled(*BOXES, crop_size=32)
    plain = dataclasses.replace(regions, crops=torch.full_like(regions.crops, 0.3))
    patch = extractor.cells[1](extractor.cells[0](torch.full((1, 3, 4, 4), 0.3)))  # (1, hidden, 1, 1)
    weight, bias = extractor.cells[2].weight, extractor.cells[2].bias
    inner = torch.nn.functional.gelu(torch.einsum("ocyx,c->o", weight, patch[0, :, 0, 0]) + bias)
    torch.testing.assert_close(tokens_of(extractor, plain)[0, :, 3], extractor.out(inner).expand(2, -1), rtol=1e-5, atol=1e-6)


def pyramid_of(count, seed=4):
    generator = torch.Generator().manual_seed(seed)
    return Pyramid(
        tuple(torch.randn(count, c, 32 // s, 32 // s, generator=generator) for c, s in zip(CHANNELS, (4, 8, 16, 32), strict=True))
    )


@torch.no_grad()
def test_with_the_images_encoder_a_token_is_what_it_saw_of_its_part():
    extractor, regions, seen = tiny(encoder="shared"), filled(*BOXES, crop_size=32), pyramid_of(2)
    assert not any(p.ndim > 2 for p in extractor.parameters())  # no convolution of its own
    tokens = extractor(seen, regions)
    assert tokens.shape == (1, 2, 4, WIDTH)
    corner = [m[1, :, -max(1, m.shape[2] // 2) :, : max(1, m.shape[3] // 2)].mean((1, 2)) for m in seen.maps]  # lower left: the third
    expected = extractor.out(torch.nn.functional.gelu(sum(layer(x) for layer, x in zip(extractor.levels, corner, strict=True))))
    torch.testing.assert_close(tokens[0, 1, 2], expected, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_what_was_seen_of_the_crops_is_of_the_valid_regions_in_their_order():
    extractor, regions, seen = tiny(encoder="shared"), filled(*BOXES, BOXES[0], crop_size=32), pyramid_of(2)
    regions.valid[0, 1] = False
    tokens = extractor(seen, regions)
    assert not tokens[0, 1].any()
    torch.testing.assert_close(tokens[:, [0, 2]], extractor(seen, filled(*BOXES, crop_size=32)))
    for given, told in ((pyramid_of(3), r"the crops' levels are \[\(3, 8\), .* expected \[\(2, 8\)"), (None, "the crops' levels are None")):
        with pytest.raises(ValueError, match=told):
            extractor(given, regions)


def test_sizes():
    assert (tiny(grid=3).tokens, tiny(grid=1).tokens, tiny().crop_size) == (9, 1, 32)
    with torch.device("meta"):
        assert Crop(CHANNELS, SIZES, WIDTH).tokens == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop_size": 30}, "crop_size: got 30, expected a multiple of patch 4"),
        ({"crop_size": 0}, "crop_size: got 0, expected a multiple of patch 4"),
        ({"patch": 0}, "expected a multiple of patch 0"),
        ({"grid": 5}, "grid: got 5, but a crop of 32 pixels has 4 x 4 cells: take 1 to 4"),
        ({"grid": 0}, "grid: got 0"),
        ({"encoder": "shared", "grid": 0}, "grid and crop_size must be at least 1, got grid 0"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        tiny(**options)


def test_crops_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"crops are \(16, 16\), this extractor was built for crop_size 32"):
        tokens_of(tiny(), filled(*BOXES, crop_size=16))
