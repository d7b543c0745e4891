import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from components.vision_encoders.clip_convnext import ClipConvNext

TINY = ClipConvNext.tiny()


def test_the_papers_tower():
    """Facts 1.2 and 1.7: 199,770,816 parameters under 345 keys, of which the last norm and the projection head are not built."""
    with torch.device("meta"):
        tower = ClipConvNext()
    dead = 2 * 1536 + (1536 * 1536 + 1536) + 768 * 1536
    assert sum(p.numel() for p in tower.parameters()) == 199_770_816 - dead
    assert len(tower.state_dict()) == 345 - 5
    assert tower.channels == (192, 384, 768, 1536)
    assert tower.sizes == ((128, 128), (64, 64), (32, 32), (16, 16))
    assert {m.eps for m in tower.modules() if isinstance(m, nn.LayerNorm)} == {1e-6}
    assert tower.preprocess.mean == (0.48145466, 0.4578275, 0.40821073)
    assert tower.preprocess.std == (0.26862954, 0.26130258, 0.27577711)
    assert (tower.preprocess.size, tower.preprocess.interpolation) == (512, "bicubic")
    assert [b.__name__ for b in tower.blocks] == ["ConvNeXtBlock"]


def test_keys_are_the_released_ones_with_two_dots_less():
    with torch.device("meta"):
        keys = set(ClipConvNext().trunk.state_dict())
    assert {
        "stem_0.weight",
        "stem_1.bias",
        "stages_3.downsample.1.weight",
        "stages_2.blocks.26.gamma",
        "stages_0.blocks.0.conv_dw.bias",
    } <= keys


def test_levels_are_the_raw_outputs_of_the_stages():
    encoder = ClipConvNext(**TINY).eval()
    classifier = timm.create_model("convnext_large", depths=(1, 1, 1, 1), dims=(8, 16, 24, 32)).eval()
    renamed = {k.replace("stem.", "stem_", 1).replace("stages.", "stages_", 1): v for k, v in classifier.state_dict().items()}
    encoder.trunk.load_state_dict({k: renamed[k] for k in encoder.trunk.state_dict()})
    images = torch.randn(1, 3, 64, 64)
    x = classifier.stem(images)
    for stage, level in zip(classifier.stages, encoder(images).maps, strict=True):
        x = stage(x)
        assert torch.equal(level, x)


def test_weights_from_a_file(tmp_path):
    source, path = ClipConvNext(**TINY), str(tmp_path / "trunk.safetensors")
    save_file(source.trunk.state_dict(), path)
    encoder = ClipConvNext(**TINY, weights=path)
    encoder.load_pretrained()
    assert encoder.has_weights
    assert all(torch.equal(a, b) for a, b in zip(encoder.parameters(), source.parameters(), strict=True))


@pytest.mark.parametrize("trunk", ["convnext_base", "convnext_large", "convnext_xxlarge"])
def test_pretrained_is_a_laion_tower_that_timm_knows(monkeypatch, trunk):
    encoder, asked = ClipConvNext(**TINY, trunk=trunk, weights="pretrained"), []
    known = timm.list_pretrained()

    def create_model(name, pretrained, **args):
        asked.append(name)
        assert pretrained
        assert args["dims"] == (8, 16, 24, 32)
        return encoder.trunk

    monkeypatch.setattr(timm, "create_model", create_model)
    encoder.load_pretrained()
    assert asked[0] in known
    assert asked[0].startswith(trunk)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 100}, "got 100, expected a multiple of 32, the largest stride of convnext_large"),
        ({"depths": [1, 1]}, r"depths: got \[1, 1\], expected one number for each of the four stages"),
        ({"dims": [8]}, r"dims: got \[8\], expected one number"),
        ({"weights": "open_clip_pytorch_model.bin"}, "allowed are"),
    ],
)
def test_mistakes_are_explained(options, message):
    with pytest.raises(ValueError, match=message):
        ClipConvNext(**{**TINY, **options})
