"""TeacherIQA's names: those of the published facts, all of them, one to one, the older ones too."""

import pytest
import torch
import torchvision

from components.released.teacher_iqa import PRESET, names, today
from components.scorers.base import SCORERS
from configs.schema import load_model
from tests.components.released.picture_names import older, resnet50, restoring, teacher_iqa


@pytest.fixture(scope="module")
def scorer():
    with torch.device("meta"):
        return SCORERS.build(load_model(PRESET))


def test_the_names_are_the_released_ones(scorer):
    official = teacher_iqa(resnet50())
    assert (len(set(official)), len(set(restoring(resnet50()))), len(set(resnet50()))) == (648, 605, 318)
    assert {names().to_released(name) for name in scorer.state_dict()} == set(official)
    assert {names().to_ours(name) for name in official} == scorer.state_dict().keys()


def test_the_list_of_the_encoders_names_is_torchvisions():
    with torch.device("meta"):
        whole = torchvision.models.resnet50(weights=None).state_dict()
    assert {name for name in whole if not name.startswith("fc.")} == set(resnet50())


def test_older_and_shorter_names_become_todays():
    official = teacher_iqa(resnet50())
    first = {older(name): torch.tensor(i) for i, name in enumerate(official)}
    assert any(name.startswith("KIM1.KI.") for name in first)
    assert any(name.startswith("tn.upDAM1.DAMConv.") for name in first)
    assert [(name, int(x)) for name, x in today(first).items()] == [(name, i) for i, name in enumerate(official)]
    alone = dict.fromkeys(map(older, restoring(resnet50())), torch.tensor(0))
    assert list(today(alone)) == [f"tn.{name}" for name in restoring(resnet50())]


def test_released_weights_see_plain_pixels_and_rate_from_0_to_100(scorer):
    assert scorer.preprocess.mean == (0, 0, 0)
    assert scorer.preprocess.std == (1, 1, 1)
    assert (scorer.worst, scorer.best, scorer.views, scorer.view) == (0, 100, 25, 224)
