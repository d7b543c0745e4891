"""MobileIQA's names: those of the published facts, all of them, one to one."""

import pytest
import timm
import torch

from components.released.mobile_iqa import PRESETS, kind, names
from components.released.shards import CheckpointError
from components.scorers.base import SCORERS
from configs.schema import load_model
from tests.components.released.picture_names import mobile_iqa, mobilenet_v3, mobilevit_v2

COUNTS = {"teacher": ("global_vit", "LGF", 469, 267), "student": ("local_cnn", "LDA", 510, 308)}
BACKBONES = {"teacher": ("mobilevitv2_200", mobilevit_v2()), "student": ("mobilenetv3_large_100", mobilenet_v3())}
CHANNELS = {"teacher": (128, 256, 512, 768, 1024), "student": (16, 24, 40, 112, 960)}
SHAPES = {  # reference facts A6
    "MALs.0.attention_module.4.qConv.weight": (32, 256, 1, 1),
    "MALs.1.attention_module.0.vConv.weight": (256, 256, 1, 1),
    "MALs.2.attention_module.3.gamma": (1,),
    "MALs.2.channel_attention.c_q.weight": (1280, 1280),
    "MALs.1.feature_attention.c_v.weight": (2420, 2420),
    "fusion_mal.channel_attention.c_k.bias": (768,),
    "fusion_mal.feature_attention.c_q.weight": (1452, 1452),
    "cnn.0.weight": (128, 256, 1, 1),
    "cnn.3.weight": (128, 128, 3, 3),
    "fc_score.0.weight": (64, 128),
    "fc_score.3.weight": (1, 64),
}


def official(whose):
    prefix, projector, *_ = COUNTS[whose]
    return mobile_iqa(BACKBONES[whose][1], prefix, projector)


@pytest.mark.parametrize("whose", COUNTS)
def test_the_names_are_the_released_ones(whose):
    _, projector, count, inside = COUNTS[whose]
    with torch.device("meta"):
        state = SCORERS.build(load_model(PRESETS[whose])).state_dict()
    released = official(whose)
    assert (len(set(released)), len(set(BACKBONES[whose][1]))) == (count, inside)
    table = names(whose, 5, 3)
    found = {table.to_released(name): x for name, x in state.items()}
    assert found.keys() == set(released)
    assert {table.to_ours(name) for name in released} == state.keys()
    projected = {f"{projector}{n}.cnn1.weight": (512, c, 1, 1) for n, c in enumerate(CHANNELS[whose], 1)}
    wanted = SHAPES | projected | {f"{projector}5.cnn2.weight": (256, 512, 1, 1)}
    assert {name: tuple(found[name].shape) for name in wanted} == wanted
    assert kind(released, "here") == whose


@pytest.mark.parametrize("whose", COUNTS)
def test_the_list_of_the_encoders_names_is_that_of_timms_own_net(whose):
    """Of the whole net without its head; where it only gives maps, timm calls a stage `stages_0`."""
    name, listed = BACKBONES[whose]
    with torch.device("meta"):
        whole = timm.create_model(name).state_dict()
    kept = {key.replace("stages.", "stages_", 1) for key in whole if not key.startswith(("head.", "conv_head.", "classifier."))}
    assert kept == set(listed)


def test_another_checkpoint_is_told_apart():
    with pytest.raises(CheckpointError, match=r"here is no checkpoint of MobileIQA: none of its 1 tensors begins with global_vit"):
        kind(["fc.weight"], "here")
