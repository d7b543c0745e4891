"""Level words as a distribution."""

import numpy as np
import pytest
import torch

from components.prompts import LEVELS, TOKENIZER_CORPUS, Dialogue
from components.readouts.base import Heard, Label, Say
from components.readouts.levels import LevelReadout, moments, soft_levels
from components.tokenizer import project_tokenizer

GRID = np.linspace(0, 1, 5)


@pytest.fixture(scope="module")
def readout():
    return LevelReadout(Dialogue(project_tokenizer(TOKENIZER_CORPUS)))


@pytest.mark.parametrize("value", [0, 0.1, 0.25, 0.3, 0.5, 0.99, 1])
def test_without_spread_a_score_is_split_over_its_neighbours(value):
    p = np.array(soft_levels(value, 0))
    assert p.sum() == pytest.approx(1)
    assert p @ GRID == pytest.approx(value)
    assert (p > 0).sum() <= 2


@pytest.mark.parametrize(("value", "std"), [(0.5, 0.1), (0.2, 0.3), (0.9, 0.05), (1.0, 0.4), (0.0, 0.2)])
def test_mean_is_that_of_the_clipped_gaussian(value, std):
    samples = np.clip(np.random.default_rng(0).normal(value, std, 1_000_000), 0, 1)
    p = np.array(soft_levels(value, std))
    assert p.sum() == pytest.approx(1)
    assert (p >= 0).all()
    assert p @ GRID == pytest.approx(samples.mean(), abs=2e-3)
    hats = np.maximum(0, 1 - np.abs(samples[:, None] - GRID) * 4).mean(0)
    assert p == pytest.approx(hats, abs=2e-3)


def test_scores_outside_the_scale_are_clipped():
    assert soft_levels(1.3, 0) == soft_levels(1, 0)
    assert soft_levels(-2, 0) == soft_levels(0, 0)


def test_moments_closed_form():
    assert moments([0, 0, 1, 0, 0]) == (0.5, 0)
    assert moments([0.5, 0, 0, 0, 0.5]) == (0.5, 0.5)
    assert moments([0, 0.25, 0, 0.75, 0]) == pytest.approx((0.625, 0.1875**0.5 / 2))


def test_target_is_the_sentence_with_a_soft_word(readout):
    target = readout.target("quality", Label(0.6))
    assert readout.dialogue.decode(target.ids) == "The quality is fair."
    assert target.ids[target.soft_at] in target.soft_ids
    assert target.soft_probabilities == pytest.approx((0, 0, 0.6, 0.4, 0))


def test_hard_labels_are_an_option():
    readout = LevelReadout(Dialogue(project_tokenizer(TOKENIZER_CORPUS)), soft=False)
    assert readout.target("quality", Label(0.6)).soft_at is None


def test_the_labels_own_spread_is_used(readout):
    assert len([p for p in readout.target("quality", Label(0.5, 0.2)).soft_probabilities if p > 0.01]) == 5


@pytest.mark.parametrize("label", [Label(), Label(float("nan"))])
def test_unknown_labels_teach_nothing(readout, label):
    assert readout.target("quality", label) is None


def test_errors():
    dialogue = Dialogue(project_tokenizer(TOKENIZER_CORPUS))
    with pytest.raises(ValueError, match="serves quality, importance, not distortion: use 'text'"):
        LevelReadout(dialogue).check("distortion")
    with pytest.raises(ValueError, match=r"in \[0, 1\], got 3"):
        LevelReadout(dialogue, label_std=3)


def said_with(readout, task, logits):
    """The answer where the level words' logits, worst to best, are these."""
    talk = readout.talk(task)
    levels = readout.dialogue.levels(task)
    assert next(talk) == Say(levels.stem, levels.ids)
    with pytest.raises(StopIteration) as end:
        talk.send(Heard(0, tuple(logits)))
    return end.value.value


def test_an_answer_is_expectation_and_deviation(readout):
    first = said_with(readout, "quality", [-50.0, -50.0, -50.0, 5.0, -50.0])
    second = said_with(readout, "quality", [2.0, -50.0, -50.0, -50.0, 2.0])
    assert (first.value, first.std, first.text) == (pytest.approx(0.75), pytest.approx(0, abs=1e-3), "The quality is good.")
    assert (second.value, second.std) == (pytest.approx(0.5), pytest.approx(0.5))
    assert sum(second.levels.values()) == pytest.approx(1)


def test_probabilities_are_a_softmax(readout):
    logits = torch.randn(5, generator=torch.Generator().manual_seed(0)) * 30
    found = said_with(readout, "importance", logits.tolist()).levels
    assert list(found.values()) == pytest.approx(logits.double().softmax(0).tolist(), abs=1e-12)
    assert list(found) == list(LEVELS["importance"])
