"""Vision towers of transformers: their maps are the towers' own hidden states, weights are read exactly, and every refusal."""

import pytest
import torch
from transformers import AutoConfig, AutoModel, CLIPConfig, CLIPModel

from components.registry import ConfigError
from components.vision_encoders.base import VISION_ENCODERS

VIT = {"hidden_size": 16, "num_hidden_layers": 8, "num_attention_heads": 2, "image_size": 64, "patch_size": 16}
TOWER = {**VIT, "intermediate_size": 32}
STAGES = {"hidden_sizes": [4, 8, 12, 16], "depths": [1, 1, 1, 1]}
TOWERS = {
    "dinov2": ({**VIT}, (2, 4, 6, 8), (16, 16, 16, 16)),
    "dinov2_with_registers": ({**VIT, "num_register_tokens": 4}, (2, 4, 6, 8), (16, 16, 16, 16)),
    "clip_vision_model": (TOWER, (2, 4, 6, 8), (16, 16, 16, 16)),
    "siglip_vision_model": (TOWER, (2, 4, 6, 8), (16, 16, 16, 16)),
    "convnext": (STAGES, (1, 2, 3, 4), (4, 8, 16, 32)),
    "resnet": ({**STAGES, "embedding_size": 4, "layer_type": "basic"}, (1, 2, 3, 4), (4, 8, 16, 32)),
    "swin": (
        {"embed_dim": 4, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "image_size": 64, "patch_size": 4, "window_size": 2},
        (0, 1, 2, 4),
        (4, 8, 16, 32),
    ),
}


def build(**options):
    torch.manual_seed(0)
    return VISION_ENCODERS.build({"plugin": "hf_vision", "image_size": 64, **options}).eval()


@pytest.mark.parametrize("family", TOWERS)
def test_levels_are_the_hidden_states_of_the_whole_tower(family):
    options, levels, strides = TOWERS[family]
    encoder = build(config={"model_type": family, **options})
    assert (encoder.levels, encoder.strides) == (levels, strides)
    torch.manual_seed(1)
    whole = AutoModel.from_config(AutoConfig.for_model(family, **options)).eval()
    encoder.net.load_state_dict({k: v for k, v in whole.state_dict().items() if k in encoder.net.state_dict()})
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        maps, out = encoder(images).maps, whole(images, output_hidden_states=True)
    states = getattr(out, "reshaped_hidden_states", None) or out.hidden_states
    for level, found in zip(levels, maps, strict=True):
        state = states[level] if states[level].ndim == 4 else states[level][:, -16:].transpose(1, 2).unflatten(2, (4, 4))
        torch.testing.assert_close(found, state)


@pytest.mark.parametrize("family", TOWERS)
def test_every_parameter_that_is_left_matters(family):
    encoder = build(config={"model_type": family, **TOWERS[family][0]}).train()
    sum(m.square().sum() for m in encoder(torch.randn(2, 3, 64, 64)).maps).backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None] == []
    assert encoder.blocks


def test_positions_are_interpolated_to_another_size():
    encoder = build(config={"model_type": "dinov2", **VIT}, image_size=96)
    assert [m.shape[-1] for m in encoder(torch.randn(1, 3, 96, 96)).maps] == [6, 6, 6, 6]


def test_weights_are_read_from_a_model_with_two_towers(tmp_path):
    text = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 100}
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=TOWER, projection_dim=8))
    clip.save_pretrained(tmp_path)
    encoder = build(source=str(tmp_path), mean=[0.5] * 3, std=[0.5] * 3)
    assert encoder.has_weights
    encoder.load_pretrained()
    there = {k.removeprefix("vision_model."): v for k, v in clip.vision_model.state_dict().items()}
    own = {k.removeprefix("vision_model."): v for k, v in encoder.net.state_dict().items()}
    assert own
    assert all(torch.equal(v, there[k]) for k, v in own.items())


def test_the_normalisation_is_the_sources(tmp_path):
    AutoModel.from_config(AutoConfig.for_model("dinov2", **VIT)).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}')
    encoder = build(source=str(tmp_path))
    assert (encoder.preprocess.mean, encoder.preprocess.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "got neither"),
        ({"config": {"model_type": "dinov22"}}, "knows no model_type 'dinov22'"),
        ({"config": {"model_type": "dinov2", "hiden_size": 3}}, "unknown key 'hiden_size'. Did you mean 'hidden_size'"),
        ({"config": {"model_type": "dinov2", **VIT}, "mean": [0.5]}, "expected three numbers"),
        ({"config": {"model_type": "clip_vision_model", **TOWER}, "image_size": 72}, "dinov2|72"),
        (
            {"config": {"model_type": "llama", "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}},
            "'llama' cannot see 64 x 64 pixels",
        ),
    ],
)
def test_errors(options, message):
    with pytest.raises(ConfigError, match=message):
        build(**options)


def test_a_source_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="neither a folder with a model"):
        build(source=str(tmp_path / "nowhere"))
