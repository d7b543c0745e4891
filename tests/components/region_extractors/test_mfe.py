import dataclasses
import math

import numpy as np
import pytest
import torch

from components.batch import Pyramid, Regions
from components.pooling import mask_pool
from components.region_extractors.mfe import MFE

RELEASED = {"channels": (192, 384, 768, 1536), "sizes": ((128, 128), (64, 64), (32, 32), (16, 16)), "width": 4096}
CHANNELS, SIZES, WIDTH = (8, 12, 16, 24), ((16, 16), (8, 8), (4, 4), (2, 2)), 20
ATTENTION = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "out"}
NAMES = {  # released module -> ours
    **{f"res{level + 2}": f"global_token.region_in.{level}" for level in range(4)},
    **{f"g_res{level + 2}": f"global_token.channel_in.{level}" for level in range(4)},
    **{f"cross_att_res.self_attn.{theirs}": f"global_token.block.self_attention.{ours}" for theirs, ours in ATTENTION.items()},
    **{f"cross_att_res.cross_attn.{theirs}": f"global_token.block.cross_attention.{ours}" for theirs, ours in ATTENTION.items()},
    "cross_att_res.norm1": "global_token.block.norm_self",
    "cross_att_res.norm2": "global_token.block.norm_cross",
    "cross_att_res.mlp.lin1": "global_token.block.mlp.0",
    "cross_att_res.mlp.lin2": "global_token.block.mlp.2",
    "feat_linear": "global_token.region_out",
    "cross_feat_linear": "global_token.context_out",
    "final_mlp": "global_token.fuse",
    "global_vit.0": "local_token.shrink.0",
    "global_vit.3": "local_token.shrink.3",
    **{f"sa.{theirs}": f"local_token.attention.{ours}" for theirs, ours in ATTENTION.items()},
    **{f"mlp.layers.{layer}": f"local_token.mlp.{2 * layer}" for layer in range(3)},
}
DEAD = [f"mask_linear.layers.{layer}" for layer in range(3)]


def uniform(stream, *shape):
    """Facts, Appendix C: the top 24 bits of SplitMix64, in [-0.5, 0.5)."""
    out = np.empty(math.prod(shape), dtype=np.float32)
    for start in range(0, len(out), 1 << 20):
        state = np.arange(start, min(start + (1 << 20), len(out)), dtype=np.uint64)
        state += np.uint64((stream * 2**32 + 0x9E3779B97F4A7C15) % 2**64)
        for shift, multiplier in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            state ^= state >> np.uint64(shift)
            state *= np.uint64(multiplier)
        state ^= state >> np.uint64(31)
        out[start : start + (1 << 20)] = (state >> np.uint64(40)).astype(np.float32) / 2**24 - 0.5
    return torch.from_numpy(out).reshape(shape)


def golden_extractor():
    with torch.device("meta"):
        extractor = MFE(*RELEASED.values())
    own = extractor.state_dict()
    weights = {}
    for stream, key in enumerate(sorted(f"{module}.{kind}" for module in [*NAMES, *DEAD] for kind in ("weight", "bias"))):
        module, _, kind = key.rpartition(".")
        if module in NAMES:
            ours = f"{NAMES[module]}.{kind}"
            u = uniform(stream, *own[ours].shape)
            if kind == "bias":
                weights[ours] = u * 0.1
            elif "norm" in module:
                weights[ours] = 1 + 0.2 * u
            else:
                weights[ours] = u * math.sqrt(12 * len(u) / u.numel())
    extractor.load_state_dict(weights, assign=True)
    return extractor.eval()


def golden_masks():
    masks = torch.zeros(1, 2, 512, 512, dtype=torch.bool)
    masks[0, 0, 100:300, 150:401] = True
    masks[0, 1, 300:450, 20:120] = True
    return masks


def golden_maps():
    return tuple(2 * uniform(1000 + i, 1, c, *s) for i, (c, s) in enumerate(zip(RELEASED["channels"], RELEASED["sizes"], strict=True)))


def test_the_random_numbers_are_the_recipes():
    np.testing.assert_allclose(uniform(0, 3), [0.38331079, 0.06656152, 0.09118968], atol=5e-9)


@torch.no_grad()
def test_golden_vectors_of_the_reference():
    """Facts, Appendix C, to the printed digits. Measured: 4e-6, the rounding of the table."""
    masks = golden_masks()
    regions = Regions(
        masks, 4 * uniform(2000, 1, 2, 3, 512, 512), torch.zeros(1, 2, 4), torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool)
    )
    extractor = golden_extractor()
    tokens = extractor(extractor.prepare(Pyramid(golden_maps())), regions)[0].double()
    found = torch.cat([tokens[..., :4], tokens[..., 4095:], tokens.mean(-1, keepdim=True), tokens.norm(dim=-1, keepdim=True)], -1)
    expected = [
        [
            [3.73405, -1.37784, 2.44749, -1.49832, -2.20939, 0.0133537, 146.8411],
            [0.0373173, 0.0617, 0.0136866, 0.00970342, -0.0537974, 0.000150057, 2.871889],
        ],
        [
            [1.78117, 0.553513, 4.07319, -0.54529, -3.73359, 0.0157635, 141.8605],
            [0.0651708, 0.0673251, -0.00762429, 0.010255, -0.0609194, -0.000329373, 2.919639],
        ],
    ]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=2e-5, atol=0)


def test_golden_pooled_features():
    pooled = [mask_pool(m, golden_masks())[0, 0].norm().item() for m in golden_maps()]
    assert pooled == pytest.approx([0.135968, 0.404575, 1.14874, 3.27296], rel=1e-5)


def test_the_papers_parameters_less_the_dead_branch():
    with torch.device("meta"):
        extractor = MFE(*RELEASED.values())
    assert sum(p.numel() for p in extractor.parameters()) == 102_875_674 - 18_094_080
    assert len(extractor.state_dict()) == 2 * len(NAMES) == 70 - 6


def tiny(**options):
    torch.manual_seed(0)
    return MFE(CHANNELS, SIZES, WIDTH, **{**MFE.tiny(), **options}).eval()


def tiny_pyramid(images=1):
    generator = torch.Generator().manual_seed(1)
    return Pyramid(tuple(torch.randn(images, c, *s, generator=generator) for c, s in zip(CHANNELS, SIZES, strict=True)))


def tiny_regions(count=3):
    generator = torch.Generator().manual_seed(2)
    masks = torch.zeros(1, count, 64, 64, dtype=torch.bool)
    for r in range(count):
        masks[0, r, 8 * r : 8 * r + 30, 4 : 40 + 6 * r] = True
    return Regions(
        masks=masks,
        crops=torch.randn(1, count, 3, 64, 64, generator=generator),
        boxes=torch.rand(1, count, 4, generator=generator),
        areas=masks.float().mean((2, 3)),
        valid=torch.ones(1, count, dtype=torch.bool),
    )


def chosen(regions, which):
    return Regions(*(getattr(regions, f.name)[:, which] for f in dataclasses.fields(regions)))


@torch.no_grad()
def tokens_of(extractor, regions):
    return extractor(extractor.prepare(tiny_pyramid()), regions)


@pytest.mark.parametrize("coupled", [False, True])
def test_permuting_regions_permutes_tokens(coupled):
    extractor, regions, order = tiny(coupled=coupled), tiny_regions(), [2, 0, 1]
    torch.testing.assert_close(tokens_of(extractor, chosen(regions, order)), tokens_of(extractor, regions)[:, order], rtol=1e-5, atol=1e-6)


def test_coupling_changes_the_global_token_of_company_only():
    regions = tiny_regions()
    alone = torch.cat([tokens_of(tiny(), chosen(regions, [r])) for r in range(3)], 1)
    coupled = tokens_of(tiny(coupled=True), regions)
    torch.testing.assert_close(tokens_of(tiny(), regions), alone, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(tokens_of(tiny(coupled=True), chosen(regions, [0])), alone[:, :1], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(coupled[:, :, 1], alone[:, :, 1], rtol=1e-5, atol=1e-6)
    assert (coupled[:, :, 0] - alone[:, :, 0]).abs().max() > 1e-3


@pytest.mark.parametrize("coupled", [False, True])
def test_padding_has_no_influence(coupled):
    extractor, regions = tiny(coupled=coupled), tiny_regions()
    regions = dataclasses.replace(regions, valid=torch.tensor([[True, False, True]]))
    valid = tokens_of(extractor, chosen(regions, [0, 2]))
    torch.testing.assert_close(tokens_of(extractor, regions)[:, [0, 2]], valid, rtol=1e-5, atol=1e-6)


def test_the_self_attention_of_one_region_is_its_projected_value():
    """Facts 1.6: softmax over one key is 1."""
    attention = tiny().global_token.block.self_attention
    x = torch.randn(5, 1, 16)
    torch.testing.assert_close(attention(x), attention.out(attention.value(x)))


@torch.no_grad()
def test_preparing_once_serves_every_region():
    extractor, regions = tiny(), tiny_regions()
    prepared = extractor.prepare(tiny_pyramid())
    for r in range(3):
        assert torch.equal(extractor(prepared, chosen(regions, [r])), tokens_of(extractor, chosen(regions, [r])))


def test_what_is_idle_gets_no_gradient_and_nothing_else():
    extractor = tiny(coupled=True)
    extractor(extractor.prepare(tiny_pyramid()), tiny_regions()).square().sum().backward()
    found = {name: 0.0 if p.grad is None else float(p.grad.abs().max()) for name, p in extractor.named_parameters()}
    still = {name for name, size in found.items() if size < 1e-6 * max(found.values())}  # some processors round where others give zeros
    idle = {name for name in found if name.startswith(extractor.idle)}
    assert len(idle) == 4
    assert idle <= still
    assert all(name.endswith("key.bias") for name in still - idle)  # what is added to all keys alike changes no softmax


def test_ablations_keep_the_other_token():
    regions, both = tiny_regions(), tiny()
    for kept, dropped in (("global_token", "local_token"), ("local_token", "global_token")):
        one = tiny(**{dropped: False})
        assert one.tokens == 1
        one.load_state_dict({k: v for k, v in both.state_dict().items() if k.startswith(kept)})
        column = slice(0, 1) if kept == "global_token" else slice(1, 2)
        assert torch.equal(tokens_of(one, regions), tokens_of(both, regions)[:, :, column])
    assert tiny(local_token=False).crop_size == 0
    assert tiny().crop_size == 64


def test_geometry_starts_as_nothing_and_learns():
    regions, plain, placed = tiny_regions(), tiny(), tiny(geometry=True)
    fresh = {k: v for k, v in placed.state_dict().items() if "geometry" in k}
    placed.load_state_dict({**plain.state_dict(), **fresh})
    assert torch.equal(tokens_of(placed, regions), tokens_of(plain, regions))
    torch.nn.init.ones_(placed.global_token.geometry[-1].weight)
    moved = dataclasses.replace(regions, boxes=regions.boxes / 2)
    before, after = tokens_of(placed, regions), tokens_of(placed, moved)
    assert (before[:, :, 0] - after[:, :, 0]).abs().max() > 1e-3
    assert torch.equal(before[:, :, 1], after[:, :, 1])


@torch.no_grad()
def test_a_bfloat16_module_stays_in_bfloat16():
    extractor, regions = tiny(), tiny_regions()
    exact = tokens_of(extractor, regions)
    extractor.bfloat16()
    prepared = extractor.prepare(Pyramid(tuple(m.bfloat16() for m in tiny_pyramid().maps)))
    rough = extractor(prepared, dataclasses.replace(regions, crops=regions.crops.bfloat16()))
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - exact).norm() < 0.05 * exact.norm()


def test_a_region_too_small_to_be_seen_still_has_a_token():
    regions = tiny_regions()
    masks = torch.zeros_like(regions.masks)
    masks[..., 0, 0] = True
    assert tokens_of(tiny(), dataclasses.replace(regions, masks=masks)).isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop_size": 48, "heads": 2}, "crop_size 48 gives a local width of 9, which does not split into 2 heads"),
        ({"crop_size": 40}, "got 40, expected a multiple of 16"),
        ({"embed": 18, "heads": 4}, "attention of width 18 / 1 does not split into 4 heads"),
        ({"cross_downsample": 3}, "attention of width 16 / 3 does not split into 2 heads"),
        ({"global_token": False, "local_token": False}, "a region needs at least one token"),
        ({"global_token": False, "geometry": True}, "switch global_token on or geometry off"),
    ],
)
def test_widths_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        tiny(**options)


def test_a_level_has_channels_and_a_size():
    with pytest.raises(ValueError, match="4 channels but 3 sizes"):
        MFE(CHANNELS, SIZES[:3], WIDTH, **MFE.tiny())


@pytest.mark.parametrize("maps", [lambda m: m[:3], lambda m: (*m[:3], m[3][..., :1])])
def test_another_pyramid_is_refused(maps):
    with pytest.raises(ValueError, match=r"levels are \[\(8, 16, 16\).*built for .*\(24, 2, 2\)\]"):
        tiny().prepare(Pyramid(maps(tiny_pyramid().maps)))


def test_crops_of_another_size_are_refused():
    regions = dataclasses.replace(tiny_regions(), crops=torch.zeros(1, 3, 3, 32, 32))
    with pytest.raises(ValueError, match=r"crops are \(32, 32\), this extractor was built for crop_size 64"):
        tokens_of(tiny(), regions)
