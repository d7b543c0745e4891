"""Replayed features: RoI-align in closed form and against torchvision's, and what the mask does to it."""

import dataclasses

import pytest
import torch
from torchvision.ops import roi_align

from components.region_extractors.roi_replay import RoiReplay, replay
from tests.components.region_extractors.regions import CHANNELS, SIDE, SIZES, WIDTH, constant_pyramid, filled, random_pyramid

BOXES = ((8, 16, 30, 20), (0, 0, 64, 64), (61, 1, 3, 63), (5, 7, 1, 1))


def tiny(**options):
    torch.manual_seed(0)
    return RoiReplay(CHANNELS, SIZES, WIDTH, **{**RoiReplay.tiny(), **options}).eval()


@torch.no_grad()
def tokens_of(extractor, pyramid, regions):
    return extractor(extractor.prepare(pyramid), regions)


@pytest.mark.parametrize("level", range(4))
@pytest.mark.parametrize(("grid", "samples"), [(1, 1), (3, 2), (2, 5)])
def test_with_equal_weights_it_is_roi_align(level, grid, samples):
    feature = torch.cat([random_pyramid().maps[level], random_pyramid(seed=9).maps[level]])
    regions = filled(*BOXES)
    boxes = torch.cat([regions.boxes, regions.boxes.flip(1)])
    side = feature.shape[-1]
    corners = [torch.cat([b[:, :2], b[:, :2] + b[:, 2:]], 1) * side for b in boxes]
    expected = roi_align(feature, corners, grid, sampling_ratio=samples, aligned=True)  # (2 R, C, grid, grid)
    found = replay(feature, boxes, torch.ones(2, len(BOXES), grid * samples, grid * samples), grid)
    torch.testing.assert_close(found.flatten(0, 1), expected.flatten(2).transpose(1, 2), rtol=1e-5, atol=1e-5)


def test_weights_by_hand():
    """A ramp along the rows, two samples a cell: of values 0.5 and 1.5 the second counts three times."""
    ramp = torch.arange(4.0).repeat(4, 1)[None, None]
    boxes = torch.tensor([[[0.125, 0.25, 0.5, 0.5]]])  # columns 0.5 to 2.5: samples at columns 0.5, 1.5 of the values' own axis
    weights = torch.tensor([[1.0, 3.0], [1.0, 3.0]])[None, None]
    assert replay(ramp, boxes, weights, 1).item() == pytest.approx((0.5 * 1 + 1.5 * 3) / 4)
    assert replay(ramp, boxes, weights * 0, 1).item() == 0


def test_a_constant_map_is_replayed_as_the_projected_constant():
    extractor, pyramid = tiny(grid=3), constant_pyramid()
    total = sum(layer(m[:, :, 0, 0]) for layer, m in zip(extractor.region_in, pyramid.maps, strict=True))
    found = tokens_of(extractor, pyramid, filled(*BOXES))
    torch.testing.assert_close(found, extractor.mlp(total).expand_as(found), rtol=1e-5, atol=1e-5)


def test_a_cell_outside_the_mask_is_empty():
    """An L over the box: three of its four quarters."""
    extractor, regions = tiny(), filled((16, 16, 32, 32))
    regions.masks[0, 0, 16:32, 32:48] = False
    tokens = tokens_of(extractor, constant_pyramid(), regions)[0, 0]
    empty = extractor.mlp(sum(layer.bias for layer in extractor.region_in))
    torch.testing.assert_close(tokens[1], empty, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(tokens[[0, 3]], tokens[2].expand(2, -1), rtol=1e-5, atol=1e-5)
    assert (tokens[0] - tokens[1]).abs().max() > 1e-2


def test_without_the_mask_the_box_is_seen_whole():
    whole, holed = filled((16, 16, 32, 32)), filled((16, 16, 32, 32))
    holed.masks[0, 0, 16:32, 20:48] = False
    pyramid, plain, masked = random_pyramid(), tiny(masked=False), tiny()
    assert torch.equal(tokens_of(plain, pyramid, whole), tokens_of(plain, pyramid, holed))
    torch.testing.assert_close(tokens_of(plain, pyramid, whole), tokens_of(masked, pyramid, whole), rtol=1e-5, atol=1e-5)
    assert (tokens_of(masked, pyramid, whole) - tokens_of(masked, pyramid, holed)).abs().max() > 1e-2


def test_a_mask_that_lost_its_pixels_counts_as_its_box():
    regions, pyramid = filled((20, 24, 2, 2)), random_pyramid()
    lost = dataclasses.replace(regions, masks=torch.zeros_like(regions.masks))
    torch.testing.assert_close(tokens_of(tiny(), pyramid, lost), tokens_of(tiny(), pyramid, regions), rtol=1e-5, atol=1e-5)


def test_what_lies_beyond_the_reach_of_the_box_plays_no_part():
    """Levels 0 alone, stride 4: bilinear samples reach one cell beyond the box at most."""
    extractor, regions = tiny(levels=(0,)), filled((16, 16, 16, 16))
    pyramid, other = random_pyramid(), random_pyramid(seed=5)
    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[3:9, 3:9] = True
    mixed = dataclasses.replace(pyramid, maps=(torch.where(inside, pyramid.maps[0], other.maps[0]), *other.maps[1:]))
    assert torch.equal(tokens_of(extractor, pyramid, regions), tokens_of(extractor, mixed, regions))
    assert (tokens_of(extractor, pyramid, regions) - tokens_of(extractor, other, regions)).abs().max() > 1e-2


def test_tokens_are_in_reading_order():
    """A map that is bright at the upper right alone."""
    extractor, pyramid = tiny(levels=(0,)), constant_pyramid()
    bright = torch.zeros_like(pyramid.maps[0])
    bright[:, :, :8, 8:] = 1.0
    tokens = tokens_of(extractor, dataclasses.replace(pyramid, maps=(bright, *pyramid.maps[1:])), filled((0, 0, SIDE, SIDE)))[0, 0]
    far = [(tokens[k] - tokens[2]).abs().max().item() for k in (0, 1, 3)]
    assert far[1] > 2 * max(far[0], far[2])


def test_levels_are_chosen():
    extractor = tiny(levels=(2, 0), grid=3)
    assert [layer.in_features for layer in extractor.region_in] == [CHANNELS[2], CHANNELS[0]]
    assert (extractor.tokens, extractor.crop_size) == (9, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": (0, 4)}, r"levels: got \[0, 4\], expected some of 0 to 3, each once"),
        ({"levels": (1, 1)}, r"levels: got \[1, 1\], expected"),
        ({"grid": 0}, "at least 1, got grid 0, samples 2"),
        ({"samples": 0}, "at least 1, got grid 2, samples 0"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        tiny(**options)


def test_another_pyramid_is_refused():
    with pytest.raises(ValueError, match="this extractor was built for"):
        tiny().prepare(dataclasses.replace(random_pyramid(), maps=random_pyramid().maps[:3]))
