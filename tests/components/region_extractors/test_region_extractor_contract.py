"""What every region extractor promises; a new plugin is found by itself."""

import dataclasses

import pytest
import torch

from components.batch import Pyramid, Regions
from components.region_extractors.base import REGION_EXTRACTORS

CHANNELS, SIZES, WIDTH = (8, 12, 16, 24), ((16, 16), (8, 8), (4, 4), (2, 2)), 20


@pytest.fixture(params=REGION_EXTRACTORS.names())
def plugin(request):
    return REGION_EXTRACTORS.get(request.param)


def build(plugin, seed=0):
    torch.manual_seed(seed)
    return plugin(CHANNELS, SIZES, WIDTH, **plugin.tiny()).eval()


def pyramid_of(images, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return Pyramid(tuple(torch.randn(images, c, *s, generator=generator) for c, s in zip(CHANNELS, SIZES, strict=True)))


def regions_of(images, count, crop_size, seed=2):
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.rand(images, count, 4, generator=generator) * 0.4 + 0.1
    masks = torch.zeros(images, count, 64, 64, dtype=torch.bool)
    for b, r in torch.cartesian_prod(torch.arange(images), torch.arange(count)).tolist():
        left, top, width, height = (boxes[b, r] * 64).int().tolist()
        masks[b, r, top : top + height, left : left + width] = True
    return Regions(
        masks=masks,
        crops=torch.randn(images, count, 3, crop_size, crop_size, generator=generator),
        boxes=boxes,
        areas=masks.float().mean((2, 3)),
        valid=torch.ones(images, count, dtype=torch.bool),
    )


def pick(regions, images=slice(None), which=slice(None)):
    return Regions(*(getattr(regions, f.name)[images, which] for f in dataclasses.fields(regions)))


def tokens_of(extractor, pyramid, regions):
    return extractor(extractor.prepare(pyramid), regions)


def test_tokens_are_as_announced(plugin):
    extractor = build(plugin)
    tokens = tokens_of(extractor, pyramid_of(2), regions_of(2, 3, extractor.crop_size))
    assert tokens.shape == (2, 3, extractor.tokens, WIDTH)
    assert tokens.dtype == torch.float32
    assert tokens.isfinite().all()


def test_gradients_reach_every_parameter(plugin):
    extractor = build(plugin)
    tokens_of(extractor, pyramid_of(2), regions_of(2, 3, extractor.crop_size)).square().sum().backward()
    assert [name for name, p in extractor.named_parameters() if p.grad is None] == []


def test_the_state_dict_holds_all_there_is(plugin):
    extractor, other = build(plugin), build(plugin, seed=1)
    other.load_state_dict(extractor.state_dict())
    inputs = pyramid_of(1), regions_of(1, 2, extractor.crop_size)
    assert torch.equal(tokens_of(extractor, *inputs), tokens_of(other, *inputs))


def test_construction_on_the_meta_device(plugin):
    with torch.device("meta"):
        ghost = plugin(CHANNELS, SIZES, WIDTH, **plugin.tiny())
    assert {p.device.type for p in ghost.parameters()} <= {"meta"}
    shapes = {k: v.shape for k, v in build(plugin).state_dict().items()}
    assert {k: v.shape for k, v in ghost.state_dict().items()} == shapes


def test_batched_equals_single(plugin):
    extractor = build(plugin)
    pyramid, regions = pyramid_of(3), regions_of(3, 2, extractor.crop_size)
    together = tokens_of(extractor, pyramid, regions)
    for b in range(3):
        alone = tokens_of(extractor, Pyramid(tuple(m[b : b + 1] for m in pyramid.maps)), pick(regions, slice(b, b + 1)))
        torch.testing.assert_close(together[b : b + 1], alone, rtol=1e-5, atol=1e-5)


def test_regions_are_independent(plugin):
    extractor = build(plugin)
    pyramid, regions = pyramid_of(2), regions_of(2, 3, extractor.crop_size)
    together = tokens_of(extractor, pyramid, regions)
    for r in range(3):
        alone = tokens_of(extractor, pyramid, pick(regions, which=slice(r, r + 1)))
        torch.testing.assert_close(together[:, r : r + 1], alone, rtol=1e-5, atol=1e-5)


def test_padding_does_not_change_the_valid_rows(plugin):
    extractor = build(plugin)
    pyramid, regions = pyramid_of(2), regions_of(2, 3, extractor.crop_size)
    valid = torch.tensor([[True, True, False], [False, False, False]])
    padded = Regions(
        *(t * valid.reshape(2, 3, *[1] * (t.ndim - 2)) for t in (getattr(regions, f.name) for f in dataclasses.fields(regions)))
    )
    tokens = tokens_of(extractor, pyramid, padded)
    assert tokens.isfinite().all()
    torch.testing.assert_close(tokens[valid], tokens_of(extractor, pyramid, regions)[valid], rtol=1e-5, atol=1e-5)


def test_bfloat16_autocast(plugin):
    extractor = build(plugin)
    inputs = pyramid_of(2), regions_of(2, 3, extractor.crop_size)
    exact = tokens_of(extractor, *inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = tokens_of(extractor, *inputs)
    assert (rough.float() - exact).norm() < 0.05 * exact.norm()


def test_a_pyramid_of_one_stride(plugin):
    """A plain ViT's: several depths at one size, all of one width."""
    torch.manual_seed(0)
    extractor = plugin((12,) * 3, ((4, 4),) * 3, WIDTH, **plugin.tiny()).eval()
    pyramid = Pyramid(tuple(torch.randn(2, 12, 4, 4) for _ in range(3)))
    tokens = tokens_of(extractor, pyramid, regions_of(2, 3, extractor.crop_size))
    assert tokens.shape == (2, 3, extractor.tokens, WIDTH)
    assert tokens.isfinite().all()


def test_a_wide_pyramid(plugin):
    torch.manual_seed(0)
    extractor = plugin((8,), ((4, 6),), WIDTH, **plugin.tiny()).eval()
    tokens = tokens_of(extractor, Pyramid((torch.randn(1, 8, 4, 6),)), regions_of(1, 2, extractor.crop_size))
    assert tokens.shape == (1, 2, extractor.tokens, WIDTH)


@torch.no_grad()
def test_a_bfloat16_module_stays_in_bfloat16(plugin):
    extractor = build(plugin)
    pyramid, regions = pyramid_of(1), regions_of(1, 3, extractor.crop_size)
    exact = tokens_of(extractor, pyramid, regions)
    extractor.bfloat16()
    half = Pyramid(tuple(m.bfloat16() for m in pyramid.maps))
    rough = tokens_of(extractor, half, dataclasses.replace(regions, crops=regions.crops.bfloat16()))
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - exact).norm() < 0.05 * exact.norm()
