"""Yes-or-no questions: the proposals, the answers, and what makes them true."""

import pytest

from components.judgments import PROPOSALS, draw, judgments
from components.prompts import LEVELS, nearest_level, parse_distortions, parse_level
from components.readouts.base import Label


@pytest.mark.parametrize("task", ["quality", "importance"])
@pytest.mark.parametrize("value", [0.0, 0.12, 0.13, 0.5, 1.0])
def test_of_levels_the_nearest_alone_is_true(task, value):
    found = judgments(task, Label(value))
    assert [j.proposal for j in found] == list(LEVELS[task])
    assert [j.true for j in found].index(True) == nearest_level(value)
    assert sum(j.true for j in found) == 1
    assert all(parse_level(task, j.statement) == nearest_level(value) for j in found)


def test_of_distortions_each_is_true():
    label = Label(distortions=(("blur", "minor"), ("noise", "severe")))
    found = judgments("distortion", label)
    assert {j.proposal for j in found if j.true} == {"blur", "noise"}
    assert len(found) == len(PROPOSALS["distortion"]) == 7
    assert all(parse_distortions(j.statement) == label.distortions for j in found)


def test_a_clean_region_shows_no_type():
    assert [j.proposal for j in judgments("distortion", Label(distortions=())) if j.true] == ["clean"]


def test_words():
    by = {j.proposal: j for j in judgments("quality", Label(0.75))}
    assert by["good"].question == "Is the quality of this region good?"
    assert by["good"].answer == "Yes. The quality is good."
    assert by["bad"].answer == "No. The quality is good."
    assert by["bad"].brief == "quality bad?"
    (essential,) = (j for j in judgments("importance", Label(0.0)) if j.proposal == "essential")
    assert essential.question == "Is this region essential to the overall image quality?"
    assert essential.answer == "No. This region is unimportant to the overall quality."
    blurred = {j.proposal: j for j in judgments("distortion", Label(distortions=(("blur", "minor"),)))}
    assert blurred["blur"].question == "Does this region show blur distortions?"
    assert blurred["blur"].answer == "Yes. With minor blur distortions."
    assert blurred["clean"].question == "Is this region free of visible distortions?"
    assert blurred["clean"].answer == "No. With minor blur distortions."


@pytest.mark.parametrize("task", ["quality", "importance", "distortion"])
def test_every_proposal_can_be_drawn_and_none_of_the_other_kind(task):
    label = Label(0.3, distortions=(("noise", "minor"),))
    for truth in (True, False):
        among = {j.proposal for j in judgments(task, label) if j.true == truth}
        drawn = [draw(task, label, truth, i / 50) for i in range(50)]
        assert {j.proposal for j in drawn} == among
        assert all(j.true == truth for j in drawn)


@pytest.mark.parametrize(("task", "label"), [("quality", Label()), ("importance", Label(float("nan"))), ("distortion", Label(0.5))])
def test_nothing_is_judged_of_what_is_not_known(task, label):
    assert judgments(task, label) == []
    assert draw(task, label, True, 0.5) is None
