import pytest
import timm
import torch
from safetensors.torch import save_file

from components.registry import ConfigError
from components.vision_encoders.base import VISION_ENCODERS
from components.vision_encoders.timm_pyramid import TimmPyramid

VIT = {"depth": 4, "embed_dim": 16, "num_heads": 2}
FAMILIES = {
    "resnet10t": (64, {"channels": [8, 16, 24, 32]}, ["BasicBlock"]),
    "test_convnext": (64, {}, ["ConvNeXtBlock"]),
    "swin_tiny_patch4_window7_224": (64, {"embed_dim": 8, "depths": [2, 1, 1, 1], "num_heads": [1, 1, 2, 2]}, ["SwinTransformerBlock"]),
    "mobilenetv3_small_050": (64, {}, ["DepthwiseSeparableConv", "InvertedResidual", "ConvBnAct"]),
    "test_efficientnet": (64, {}, ["ConvBnAct", "EdgeResidual", "InvertedResidual"]),
    "vit_small_patch14_dinov2": (56, VIT, ["Block"]),
    "vit_base_patch16_siglip_224": (64, VIT, ["Block"]),
    "vit_base_patch16_clip_224": (64, VIT, ["Block"]),
    "vit_small_patch16_dinov3": (64, VIT, ["EvaBlock"]),
}
TINY = TimmPyramid.tiny()


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_gives_the_maps_it_announces(name):
    size, args, blocks = FAMILIES[name]
    encoder = TimmPyramid(name=name, image_size=size, model_args=args).eval()
    images = torch.randn(2, 3, size, size, requires_grad=True)
    maps = encoder(images).maps
    assert [tuple(m.shape) for m in maps] == [(2, c, *s) for c, s in zip(encoder.channels, encoder.sizes, strict=True)]
    assert len(maps) == 4
    assert [b.__name__ for b in encoder.blocks] == blocks
    sum(m.square().sum() for m in maps).backward()
    assert [n for n, p in encoder.named_parameters() if p.grad is None] == []
    with torch.device("meta"):
        ghost = TimmPyramid(name=name, image_size=size, model_args=args)
    assert {p.device.type for p in ghost.parameters()} == {"meta"}


@pytest.mark.parametrize(
    ("name", "levels", "channels", "strides"),
    [
        ("resnet10t", None, (8, 16, 24, 32), (4, 8, 16, 32)),
        ("resnet10t", [0, 2], (64, 16), (2, 8)),
        ("resnet10t", [-2, -1], (24, 32), (16, 32)),
        ("vit_small_patch16_224", None, (16, 16, 16, 16), (16, 16, 16, 16)),
        ("vit_small_patch16_224", [-1], (16,), (16,)),
    ],
)
def test_levels(name, levels, channels, strides):
    args = TINY["model_args"] if name == "resnet10t" else VIT
    encoder = TimmPyramid(name=name, image_size=64, model_args=args, levels=levels)
    assert (encoder.channels, encoder.strides) == (channels, strides)


@pytest.mark.parametrize(
    ("name", "args", "most", "strides"),
    [
        ("resnet10t", TINY["model_args"], 5, (2, 4, 8, 16, 32)),
        ("resnet10t", TINY["model_args"], 2, (16, 32)),
        ("mobilenetv3_small_050", {}, 5, (2, 4, 8, 16, 32)),
        ("test_convnext", {}, 5, (4, 8, 16, 32)),  # it has no more
        ("swin_tiny_patch4_window7_224", FAMILIES["swin_tiny_patch4_window7_224"][1], 5, (4, 8, 16, 32)),
        ("vit_small_patch16_224", {**VIT, "depth": 10}, 5, (16,) * 5),
    ],
)
def test_so_many_levels_or_all_that_there_are(name, args, most, strides):
    encoder = TimmPyramid(name=name, image_size=64, model_args=args, most_levels=most).eval()
    maps = encoder(torch.randn(1, 3, 64, 64)).maps
    assert encoder.strides == strides
    assert [tuple(m.shape[1:]) for m in maps] == [(c, 64 // s, 64 // s) for c, s in zip(encoder.channels, strides, strict=True)]


def test_more_depths_of_a_plain_vit_are_evenly_spaced_too():
    with torch.device("meta"):
        encoder = TimmPyramid(name="vit_small_patch16_224", image_size=32, model_args={**VIT, "depth": 10}, most_levels=5)
    assert encoder.args["out_indices"] == (1, 3, 5, 7, 9)


@pytest.mark.parametrize(("depth", "chosen"), [(12, (2, 5, 8, 11)), (24, (5, 11, 17, 23)), (4, (0, 1, 2, 3)), (2, (0, 1))])
def test_depths_of_a_plain_vit_are_evenly_spaced(depth, chosen):
    with torch.device("meta"):
        encoder = TimmPyramid(name="vit_small_patch16_224", image_size=32, model_args={**VIT, "depth": depth})
    assert encoder.args["out_indices"] == chosen


def test_what_lies_behind_the_last_level_is_not_built():
    short = TimmPyramid(**TINY, levels=[1, 2])
    assert {k.split(".")[0] for k in short.net.state_dict()} == {"conv1", "bn1", "layer1", "layer2"}


def test_preprocessing_is_timms_unless_overridden():
    siglip = TimmPyramid(name="vit_base_patch16_siglip_224", model_args=VIT).preprocess
    assert (siglip.size, siglip.mean, siglip.interpolation) == (224, (0.5, 0.5, 0.5), "bicubic")
    own = TimmPyramid(**TINY, mean=[0.0, 0.1, 0.2], std=[1.0, 2.0, 3.0]).preprocess
    assert (own.size, own.mean, own.std) == (64, (0.0, 0.1, 0.2), (1.0, 2.0, 3.0))


def test_swin_maps_match_timms_own_channels_last_output():
    size, args, _ = FAMILIES["swin_tiny_patch4_window7_224"]
    encoder = TimmPyramid(name="swin_tiny_patch4_window7_224", image_size=size, model_args=args).eval()
    images = torch.randn(1, 3, size, size)
    for ours, timms in zip(encoder(images).maps, encoder.net(images), strict=True):
        assert torch.equal(ours, timms.movedim(-1, 1))


def test_weights_round_trip_through_a_file(tmp_path):
    source = TimmPyramid(**TINY)
    path = str(tmp_path / "tiny.safetensors")
    save_file({k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in source.net.state_dict().items()}, path)
    encoder = TimmPyramid(**TINY, weights=path)
    assert encoder.has_weights
    encoder.load_pretrained()
    for key, value in encoder.net.state_dict().items():
        assert torch.equal(value, source.net.state_dict()[key].half().to(value.dtype))


def test_a_file_of_another_architecture_is_refused(tmp_path):
    path = str(tmp_path / "other.safetensors")
    save_file({k: v.contiguous() for k, v in TimmPyramid(name="test_convnext", image_size=64).net.state_dict().items()}, path)
    with pytest.raises(ValueError, match=r"other.safetensors does not fit FeatureListNet: \d+ missing: conv1.*unexpected: stages_0"):
        TimmPyramid(**TINY, weights=path).load_pretrained()


def test_pretrained_asks_timm_for_the_same_model(monkeypatch):
    encoder, source = TimmPyramid(**TINY, weights="pretrained"), TimmPyramid(**TINY)
    asked = {}

    def create_model(name, **args):
        asked.update(args, name=name)
        return source.net

    monkeypatch.setattr(timm, "create_model", create_model)
    encoder.load_pretrained()
    channels = TINY["model_args"]["channels"]
    expected = {"name": "resnet10t", "pretrained": True, "features_only": True, "out_indices": (1, 2, 3, 4), "channels": channels}
    assert asked == expected
    assert all(torch.equal(a, b) for a, b in zip(encoder.parameters(), source.parameters(), strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "vit_small"}, r"no model 'vit_small'. Nearest: vit_small_\w+, vit_small_"),
        ({"name": "convnext_tini"}, r"no model 'convnext_tini'. Nearest: convnext_tiny"),
        ({"name": "resnet10t.nope"}, r"no weights 'nope' of 'resnet10t'. Known: c3_in1k"),
        ({"image_size": 100}, r"100 is no multiple of 32, the largest stride of resnet10t; nearest are 96 and 128"),
        ({"image_size": 0}, r"0 is no multiple of 32.*nearest are 32 and 64"),
        ({"image_size": None}, r"176 is no multiple of 32.*nearest are 160 and 192"),
        ({"levels": [1, 5]}, r"got \[1, 5\], but resnet10t has 5: -5 to 4, at strides 2, 4, 8, 16, 32. Without levels .*most_levels takes"),
        ({"most_levels": 0}, "most_levels: got 0, expected at least 1"),
        ({"levels": [2, 1]}, "each once, fine to coarse"),
        ({"levels": [4, -1]}, "each once, fine to coarse"),
        ({"levels": []}, "name at least one"),
        ({"model_args": {"in_chans": 1}}, r"in_chans cannot be given here; use image_size, levels and weights"),
        ({"mean": [0.5]}, r"mean: got \[0.5\], expected three numbers"),
        ({"std": [1.0, 1.0]}, r"std: got \[1.0, 1.0\], expected three numbers"),
        ({"weights": "w.bin"}, "got 'w.bin', allowed are"),
    ],
)
def test_mistakes_are_explained(options, message):
    with pytest.raises(ValueError, match=message):
        TimmPyramid(**{**TINY, **options})


def test_the_options_pass_the_registrys_schema():
    node = {"plugin": "timm_pyramid", **TINY, "levels": [1, 2], "mean": [0.5, 0.5, 0.5]}
    assert VISION_ENCODERS.build(node).strides == (4, 8)
    with pytest.raises(ConfigError, match="image_size: got 'big'"):
        VISION_ENCODERS.part({**node, "image_size": "big"})
