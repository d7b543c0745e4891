"""Osprey's two tokens: mask-pooled features and the mask's shape."""

import dataclasses

import pytest
import torch

from components.region_extractors.mask_pool import MaskPool
from tests.components.region_extractors.regions import CHANNELS, SIZES, WIDTH, constant_pyramid, filled, random_pyramid

BOXES = ((8, 16, 30, 20), (0, 0, 64, 64))


def tiny(**options):
    torch.manual_seed(0)
    return MaskPool(CHANNELS, SIZES, WIDTH, **{**MaskPool.tiny(), **options}).eval()


@torch.no_grad()
def tokens_of(extractor, pyramid, regions):
    return extractor(extractor.prepare(pyramid), regions)


def test_the_shape_branch_has_the_released_size():
    """Facts 1.6: mask_linear, 12544 -> 1024 -> 1024 -> 4096."""
    with torch.device("meta"):
        extractor = MaskPool((192, 384, 768, 1536), ((128, 128), (64, 64), (32, 32), (16, 16)), 4096)
    assert sum(p.numel() for p in extractor.shape.parameters()) == 18_094_080
    assert sum(p.numel() for p in extractor.region_in.parameters()) == 2_953_216


def test_a_constant_map_gives_the_token_of_the_constant():
    extractor, pyramid = tiny(), constant_pyramid()
    total = sum(layer(m[:, :, 0, 0]) for layer, m in zip(extractor.region_in, pyramid.maps, strict=True))
    found = tokens_of(extractor, pyramid, filled(*BOXES))[:, :, 0]
    torch.testing.assert_close(found, extractor.mlp(total).expand_as(found), rtol=1e-5, atol=1e-5)


def test_an_indicator_is_pooled_to_what_the_mask_holds_of_it():
    """A map that is 1 in its left half: all of one region, half of another, nothing of the third."""
    extractor = tiny(shape_size=0)
    maps = [torch.zeros(1, c, *s) for c, s in zip(CHANNELS, SIZES, strict=True)]
    for m in maps:
        m[..., : m.shape[-1] // 2] = 1.0
    regions = filled((0, 0, 32, 64), (0, 0, 64, 64), (32, 0, 32, 64))
    found = tokens_of(extractor, dataclasses.replace(constant_pyramid(), maps=tuple(maps)), regions)[0, :, 0]
    for r, share in enumerate((1.0, 0.5, 0.0)):
        total = sum(layer(torch.full((layer.in_features,), share)) for layer in extractor.region_in)
        torch.testing.assert_close(found[r], extractor.mlp(total), rtol=1e-4, atol=1e-5)


def test_the_shape_token_is_that_of_the_mask_alone():
    extractor, regions = tiny(), filled((16, 8, 24, 40))
    one, other = (tokens_of(extractor, random_pyramid(seed=s), regions)[0, 0] for s in (1, 2))
    assert torch.equal(one[1], other[1])
    assert (one[0] - other[0]).abs().max() > 1e-2
    picture = torch.zeros(8, 8)
    picture[1:6, 2:5] = 1.0  # cells of 8 pixels
    torch.testing.assert_close(one[1], extractor.shape(picture.flatten()), rtol=1e-5, atol=1e-6)


def test_without_the_shape_the_other_token_is_the_same():
    both, one = tiny(), tiny(shape_size=0)
    one.load_state_dict({k: v for k, v in both.state_dict().items() if not k.startswith("shape.")})
    inputs = random_pyramid(), filled(*BOXES)
    assert (both.tokens, one.tokens) == (2, 1)
    assert torch.equal(tokens_of(one, *inputs), tokens_of(both, *inputs)[:, :, :1])


def test_errors():
    with pytest.raises(ValueError, match="shape_size: got -1, expected pixels, or 0"):
        tiny(shape_size=-1)
    with pytest.raises(ValueError, match="this extractor was built for"):
        tiny().prepare(dataclasses.replace(random_pyramid(), maps=random_pyramid().maps[1:]))
