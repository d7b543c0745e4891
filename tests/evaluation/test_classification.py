import math

import numpy as np
import pytest
from sklearn.metrics import f1_score

from evaluation import classification
from evaluation.classification import SEVERAL, UNPARSED, classify, confusion, read_classes


def sets(*texts):
    return [read_classes(text, "clean") for text in texts]


def test_read_classes():
    assert sets("", "blur", "noise; blur", None, math.nan) == [{"clean"}, {"blur"}, {"blur", "noise"}, None, None]


def test_single_classes_equal_scikit_learn():
    rng = np.random.default_rng(0)
    labels, answers = rng.choice(["blur", "noise", ""], (2, 200))
    result = classify(sets(*labels), sets(*answers))
    assert result.accuracy == pytest.approx(np.mean(labels == answers))
    assert result.macro_f1 == pytest.approx(f1_score(labels, answers, average="macro"))
    assert result.precision == result.recall == pytest.approx(result.accuracy)
    assert np.trace(result.confusion) == round(result.accuracy * 200)


def test_by_hand():
    result = classify(sets("", "blur", "blur", "noise"), sets("", "blur", "noise", "contrast"), first=("clean",))
    assert result.labels == ("clean", "blur", "contrast", "noise")
    assert result.confusion.tolist() == [[1, 0, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0], [0, 0, 1, 0]]
    assert result.accuracy == 0.5
    assert result.per_class_f1 == pytest.approx({"clean": 1, "blur": 2 / 3, "contrast": 0, "noise": 0})
    assert result.macro_f1 == pytest.approx((1 + 2 / 3) / 4)


def test_an_unparsed_answer_is_wrong_and_no_class_of_its_own():
    result = classify(sets("blur", "blur"), sets("blur", None))
    assert result.accuracy == 0.5
    assert result.per_class_f1 == pytest.approx({"blur": 2 / 3})
    assert result.macro_f1 == pytest.approx(2 / 3)
    assert result.labels == ("blur", UNPARSED)
    assert result.confusion.tolist() == [[1, 1], [0, 0]]


def test_what_only_an_answer_can_be_has_no_score_of_its_own():
    result = classify(sets("blur", "blur"), sets("blur", ""), outside=("clean",))
    assert result.labels == ("blur", "clean")
    assert result.per_class_f1 == pytest.approx({"blur": 2 / 3})


def test_several_types():
    result = classify(sets("blur;noise", "blur;noise"), sets("noise;blur", "blur"))
    assert result.accuracy == 0.5
    assert (result.precision, result.recall) == pytest.approx((1, 0.75))
    assert result.f1 == pytest.approx((1 + 2 / 3) / 2)
    assert result.labels == ("blur", "noise", SEVERAL)
    assert result.confusion.tolist() == [[0, 0, 0], [0, 0, 0], [1, 0, 1]]


def test_one_class_alone():
    result = classify(sets("", ""), sets("", ""))
    assert (result.accuracy, result.macro_f1, result.f1) == (1, 1, 1)


def test_nothing_is_nan():
    result = classify([], [])
    assert math.isnan(result.accuracy)
    assert math.isnan(result.macro_f1)
    assert result.confusion.shape == (0, 0)


def test_the_order_is_the_callers():
    labels, answers = sets("blur", "noise"), sets("noise", "noise")
    assert confusion(labels, answers, ("noise", "blur")).tolist() == [[1, 0], [1, 0]]
    with pytest.raises(ValueError, match=r"lacks \['blur'\]"):
        confusion(labels, answers, ("noise",))


def test_mistakes_are_refused():
    with pytest.raises(ValueError, match="1 labels and 2 predictions"):
        classify(sets(""), sets("", ""))
    with pytest.raises(ValueError, match="'unparsed' is reserved"):
        classify(sets("unparsed"), sets(""))


def test_a_text_is_read_once_however_many_answers_give_it():
    classification._classes.cache_clear()
    table = ["blur; noise", "", "blur", None] * 50
    found = [classification.read_classes(text, "clean") for text in table]
    assert found == [frozenset({"blur", "noise"}), frozenset({"clean"}), frozenset({"blur"}), None] * 50
    assert classification.read_classes("", "ungraded") == {"ungraded"}
    assert classification._classes.cache_info().misses == 4
