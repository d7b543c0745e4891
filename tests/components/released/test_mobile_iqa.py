"""MobileIQA's names: those of the published facts, all of them, one to one."""

import pytest
import torch

from components.released.mobile_iqa import PRESETS, kind, names
from components.released.shards import CheckpointError
from components.scorers.base import SCORERS
from configs.schema import load_model
from tests.components.released.picture_names import mobile_iqa

COUNTS = {"teacher": ("global_vit", "LGF", 469, 267), "student": ("local_cnn", "LDA", 510, 308)}
SHAPES = {  # reference facts A6
    "MALs.0.attention_module.4.qConv.weight": (32, 256, 1, 1),
    "MALs.2.channel_attention.c_q.weight": (1280, 1280),
    "MALs.1.feature_attention.c_v.weight": (2420, 2420),
    "fusion_mal.channel_attention.c_k.bias": (768,),
    "fusion_mal.feature_attention.c_q.weight": (1452, 1452),
    "cnn.3.weight": (128, 128, 3, 3),
    "fc_score.3.weight": (1, 64),
}


@pytest.mark.parametrize("whose", COUNTS)
def test_the_names_are_the_released_ones(whose):
    prefix, projector, count, inside = COUNTS[whose]
    with torch.device("meta"):
        scorer = SCORERS.build(load_model(PRESETS[whose]))
    state = scorer.state_dict()
    backbone = list(scorer.vision_encoder.net.state_dict())
    official = mobile_iqa(backbone, prefix, projector)
    assert (len(official), len(backbone)) == (count, inside)
    table = names(whose, 5, 3)
    found = {table.to_released(name): x for name, x in state.items()}
    assert found.keys() == set(official)
    assert {table.to_ours(name) for name in official} == state.keys()
    assert {name: tuple(found[name].shape) for name in SHAPES} == SHAPES
    assert f"{prefix}.{'stages_0.0.conv1_1x1.conv.weight' if whose == 'teacher' else 'blocks.0.0.conv_dw.weight'}" in official
    assert kind(official, "here") == whose


def test_another_checkpoint_is_told_apart():
    with pytest.raises(CheckpointError, match=r"here is no checkpoint of MobileIQA: none of its 1 tensors begins with global_vit"):
        kind(["fc.weight"], "here")
