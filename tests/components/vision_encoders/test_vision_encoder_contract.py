"""What every vision encoder promises; a new plugin is found by itself."""

import pytest
import torch

from components.vision_encoders.base import VISION_ENCODERS


@pytest.fixture(params=VISION_ENCODERS.names())
def plugin(request):
    return VISION_ENCODERS.get(request.param)


def build(plugin, seed=0):
    torch.manual_seed(seed)
    return plugin(**plugin.tiny()).eval()


def images_for(encoder, count=2):
    side = encoder.preprocess.size
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def test_maps_are_as_announced(plugin):
    encoder = build(plugin)
    maps = encoder(images_for(encoder)).maps
    assert [tuple(m.shape) for m in maps] == [(2, c, *size) for c, size in zip(encoder.channels, encoder.sizes, strict=True)]
    assert len(encoder.strides) == len(encoder.channels)
    assert list(encoder.strides) == sorted(encoder.strides)
    assert {m.dtype for m in maps} == {torch.float32}
    assert all(m.isfinite().all() for m in maps)


def test_gradients_reach_the_images_and_every_parameter(plugin):
    encoder = build(plugin)
    images = images_for(encoder).requires_grad_()
    sum(m.square().sum() for m in encoder(images).maps).backward()
    assert images.grad.abs().sum() > 0
    assert [name for name, p in encoder.named_parameters() if p.grad is None] == []


def test_the_state_dict_holds_all_there_is(plugin):
    encoder, other = build(plugin), build(plugin, seed=1)
    other.load_state_dict(encoder.state_dict())
    images = images_for(encoder)
    for one, two in zip(encoder(images).maps, other(images).maps, strict=True):
        assert torch.equal(one, two)


def test_construction_on_the_meta_device(plugin):
    with torch.device("meta"):
        ghost = plugin(**plugin.tiny())
    assert {p.device.type for p in ghost.parameters()} == {"meta"}
    shapes = {k: v.shape for k, v in build(plugin).state_dict().items()}
    assert {k: v.shape for k, v in ghost.state_dict().items()} == shapes


def test_batched_equals_single(plugin):
    encoder = build(plugin)
    images = images_for(encoder, count=3)
    for b in range(3):
        for together, alone in zip(encoder(images).maps, encoder(images[b : b + 1]).maps, strict=True):
            torch.testing.assert_close(together[b : b + 1], alone, rtol=1e-5, atol=1e-5)


def test_blocks_are_classes_of_the_encoder(plugin):
    encoder = build(plugin)
    present = {type(m) for m in encoder.modules()}
    assert set(encoder.blocks) <= present


def test_tiny_is_random(plugin):
    encoder = build(plugin)
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    encoder.load_pretrained()
    assert not encoder.has_weights
    assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())
