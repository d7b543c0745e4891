import pytest

from evaluation.comparison import judge
from evaluation.differences import leading
from evaluation.entries import Entry


def only(answers, task):
    return answers.drop(columns=[f"{t}_parsed" for t in ("quality", "importance", "distortion") if t != task])


def test_models_without_a_common_task_are_refused(answers):
    entries = [Entry("a", only(answers, "quality")), Entry("b", only(answers, "importance"))]
    with pytest.raises(ValueError, match=r"no two models answered about the same task \(a about quality, b about importance\)"):
        judge(entries, draws=2)


def test_one_of_several_without_a_common_task_is_told(answers):
    entries = [Entry(n, only(answers, t)) for n, t in (("a", "quality"), ("b", "quality"), ("c", "importance"))]
    result = judge(entries, draws=2)[0]
    assert result["notes"] == ["c answered about no task that another did, so it is compared with none"]
    assert [(d["first"], d["second"]) for d in leading(result["differences"])] == [("a", "b")]


def test_one_model_alone_is_judged(answers):
    assert judge([Entry("a", only(answers, "quality"))], draws=2)[0]["notes"] == []


def test_regions_without_an_answer_are_told_with_the_first(answers):
    table = only(answers, "quality")
    found = judge([Entry("a", table), Entry("b", table.drop(index=[7, 20]).reset_index(drop=True))], draws=2)[0]
    assert found["notes"] == [
        "b has no answer about quality for 2 of 48 labelled regions, the first is 'region-7': no model is judged on them"
    ]
