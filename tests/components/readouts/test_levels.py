"""Level words as a distribution."""

import numpy as np
import pytest
import torch

from components.prompts import TOKENIZER_CORPUS, Dialogue
from components.readouts.base import Label
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
    mean, std = moments(torch.tensor([[0, 0, 1.0, 0, 0], [0.5, 0, 0, 0, 0.5]]))
    assert mean.tolist() == [0.5, 0.5]
    assert std.tolist() == pytest.approx([0, 0.5])


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


class _Says:
    def __init__(self, logits):
        self.logits = logits

    def after(self, ids):
        self.ids = ids
        return self.logits


def test_read_gives_expectation_and_deviation(readout):
    levels = readout.dialogue.levels("quality")
    logits = torch.full((2, 800), -50.0)
    logits[0, levels.ids[3]] = 5.0
    logits[1, levels.ids[0]] = logits[1, levels.ids[4]] = 2.0
    logits[1, 3] = 90.0  # another word, however probable, plays no part
    first, second = readout.read("quality", _Says(logits))
    assert (first.value, first.std, first.text) == (pytest.approx(0.75), pytest.approx(0, abs=1e-3), "The quality is good.")
    assert (second.value, second.std) == (pytest.approx(0.5), pytest.approx(0.5))
    assert sum(second.levels.values()) == pytest.approx(1)
