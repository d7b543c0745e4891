"""Each term of the objective against what can be worked out by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import norm

from components.objectives import Objective, fidelity, language_loss, level_moments, level_probabilities, pairs, rank_loss
from components.prompts import REGION
from components.readouts.base import Target
from components.registry import ConfigError
from components.splice import Branch, pack, supervised_columns

VOCABULARY = 12


def soft(word, *probabilities):
    """An answer of one level word, one of ids 9 and 10, and the end."""
    return Target((word, 2), 0, (9, 10), probabilities)


def packed_of(*images):
    packed = pack((1, 5), images, image_tokens=0, region_tokens=1)
    columns = supervised_columns(packed)
    logits = torch.randn(len(images), len(columns), VOCABULARY, generator=torch.Generator().manual_seed(0), requires_grad=True)
    return logits, columns, packed


def test_language_loss_is_cross_entropy_target_by_target():
    logits, columns, packed = packed_of(
        [Branch(0, (REGION, 7), Target((8, 9, 2), 1, (9, 10), (0.25, 0.75))), Branch(1, (REGION, 7, 7), Target((8, 2)))],
        [Branch(0, (REGION, 7), Target((8, 2)))],
    )
    plain, levels = language_loss(logits, columns, packed)
    at = {int(c): i for i, c in enumerate(columns)}
    expected = [F.cross_entropy(logits[b, at[c]], torch.tensor(i)) for b, c, i in packed.hard.tolist()]
    torch.testing.assert_close(plain, torch.stack(expected))
    ((row, column),) = packed.soft.tolist()
    log_p = logits[row, at[column]].log_softmax(-1)
    torch.testing.assert_close(levels, -(0.25 * log_p[9] + 0.75 * log_p[10])[None])


def test_without_soft_targets_there_is_no_loss_of_them():
    logits, columns, packed = packed_of([Branch(0, (REGION,), Target((8, 2)))])
    assert language_loss(logits, columns, packed)[1].shape == (0,)
    assert Objective().total(logits, columns, packed)["levels"] == 0


def test_moments_closed_form():
    mean, variance = level_moments(torch.tensor([[0, 0, 1.0, 0, 0], [0.5, 0, 0, 0, 0.5], [0, 0.25, 0, 0.75, 0]]))
    assert mean.tolist() == pytest.approx([0.5, 0.5, 0.625])
    assert variance.tolist() == pytest.approx([0, 0.25, 0.1875 / 4])


def test_level_probabilities_are_those_of_the_level_words_alone():
    logits, columns, packed = packed_of([Branch(0, (REGION,), soft(9, 1.0, 0.0))])
    at = int(torch.searchsorted(columns, packed.soft[0, 1]))
    torch.testing.assert_close(level_probabilities(logits, columns, packed)[0], logits[0, at, [9, 10]].softmax(0))


@pytest.mark.parametrize(("z", "wanted"), [(0.3, -0.7), (0.0, 2.0), (-1.5, -1.4), (2.0, 2.0)])
def test_fidelity_is_its_formula(z, wanted):
    p, q = norm.cdf(z), norm.cdf(wanted)
    found = fidelity(torch.tensor([z], dtype=torch.float64), torch.tensor([wanted], dtype=torch.float64))
    assert found.item() == pytest.approx(1 - math.sqrt(p * q) - math.sqrt((1 - p) * (1 - q)), abs=1e-12)


def test_fidelity_is_safe_where_a_probability_is_0_or_1():
    z = torch.tensor([1e3, -1e3, 1e3, 0.0, -1e3, 40.0], requires_grad=True)
    wanted = torch.tensor([1e3, -1e3, -1e3, 1e3, 0.0, -40.0])
    found = fidelity(z, wanted)
    assert found.tolist() == pytest.approx([0, 0, 1, 1 - math.sqrt(0.5), 1 - math.sqrt(0.5), 1], abs=1e-6)
    (slope,) = torch.autograd.grad(found.sum(), z)
    assert torch.isfinite(slope).all()
    assert slope[3] < 0  # a tie that should be a win is pulled


def test_pairs_are_those_of_a_group_each_once():
    first, second, weight = pairs(torch.tensor([4, 1, 4, 4, 1, 9]))
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == [(0, 2), (0, 3), (1, 4), (2, 3)]
    assert weight.tolist() == [0.5, 0.5, 1, 0.5]


def test_rank_loss_closed_form():
    """Two certain neighbours in the wrong order against two certain ones in the right order: probability 0 in place of 1."""
    low, high = [1.0, 0, 0, 0, 0], [0, 0, 0, 0, 1.0]
    group = torch.tensor([0, 0])
    right, wrong = torch.tensor([low, high]), torch.tensor([high, low])
    assert rank_loss(wrong, right, group).item() == pytest.approx(2)  # each of two scores loses 1
    assert rank_loss(right, right, group).item() == 0
    even = torch.full((2, 5), 0.2)
    assert rank_loss(even, right, group).item() == pytest.approx(2 * (1 - math.sqrt(0.5)))


def test_rank_loss_takes_mean_and_variance():
    predicted = torch.tensor([[0.1, 0.2, 0.4, 0.2, 0.1], [0.0, 0.1, 0.2, 0.3, 0.4]], dtype=torch.float64)
    wanted = torch.tensor([[0.0, 0.0, 0.6, 0.4, 0.0], [0.3, 0.7, 0.0, 0.0, 0.0]], dtype=torch.float64)

    def ahead(p):
        values = torch.linspace(0, 1, 5, dtype=torch.float64)
        mean = p @ values
        variance = p @ values**2 - mean**2
        return norm.cdf(((mean[0] - mean[1]) / (variance.sum() + 1e-6).sqrt()).item())

    p, q = ahead(predicted), ahead(wanted)
    expected = 2 * (1 - math.sqrt(p * q) - math.sqrt((1 - p) * (1 - q)))
    assert rank_loss(predicted.float(), wanted.float(), torch.tensor([3, 3])).item() == pytest.approx(expected, abs=1e-5)


def test_rank_loss_is_not_rounded_under_autocast():
    g = torch.Generator().manual_seed(2)
    predicted, wanted, group = torch.rand(6, 5, generator=g).softmax(-1), torch.rand(6, 5, generator=g).softmax(-1), torch.zeros(6).long()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = rank_loss(predicted, wanted, group)
    assert rounded == rank_loss(predicted, wanted, group)


def test_rank_loss_knows_groups_alone():
    g = torch.Generator().manual_seed(1)
    predicted, wanted = torch.rand(6, 5, generator=g).softmax(-1), (4 * torch.rand(6, 5, generator=g)).softmax(-1)
    group = torch.tensor([0, 2, 0, 0, 2, 5])
    apart = [rank_loss(predicted[group == k], wanted[group == k], group[group == k]) for k in (0, 2, 5)]
    assert apart[2] == 0  # alone
    torch.testing.assert_close(rank_loss(predicted, wanted, group), sum(apart))
    order = torch.tensor([5, 3, 0, 4, 1, 2])
    torch.testing.assert_close(rank_loss(predicted[order], wanted[order], group[order]), sum(apart))
    assert rank_loss(predicted[:0], wanted[:0], group[:0]) == 0


def test_a_step_along_the_gradient_of_the_rank_loss_orders_the_regions():
    logits = torch.zeros(2, 5, requires_grad=True)
    wanted = torch.tensor([[0.0, 0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 0.0, 0.0, 0.0]])
    rank_loss(logits.softmax(-1), wanted, torch.tensor([0, 0])).backward()
    mean, _ = level_moments((logits - logits.grad).softmax(-1).detach())
    assert mean[0] > mean[1]


def rows():
    one = [
        Branch(0, (REGION, 7), soft(9, 0.9, 0.1), "quality"),
        Branch(0, (REGION, 6), Target((8, 4, 2)), "quality", judgment=True),
        Branch(1, (REGION, 7), soft(10, 0.2, 0.8), "quality"),
        Branch(1, (REGION, 3), Target((8, 2)), "distortion"),
    ]
    return packed_of(one, [Branch(0, (REGION, 7), soft(9, 0.5, 0.5), "quality")])


def test_terms_are_per_answer_and_add_up_to_the_loss():
    logits, columns, packed = rows()
    found = Objective(text=0.5, levels=2.0, rank=0.25, judgments=1.0).total(logits, columns, packed)
    plain, levels = language_loss(logits, columns, packed)
    judged = packed.hard_answer == 1
    assert found["answers"] == packed.answers == 4
    torch.testing.assert_close(found["text"], plain[~judged].sum() / 4)
    torch.testing.assert_close(found["judgment"], plain[judged].sum() / 4)
    torch.testing.assert_close(found["levels"], levels.sum() / 4)
    alone = rank_loss(level_probabilities(logits, columns, packed)[:2], packed.soft_probabilities[:2], torch.tensor([0, 0]))
    torch.testing.assert_close(found["rank"], alone / 4)  # the second image has one region: it is no pair
    whole = 0.5 * found["text"] + 2 * found["levels"] + 0.25 * found["rank"] + found["judgment"]
    torch.testing.assert_close(found["loss"], whole)


def test_terms_that_are_off_are_not_named():
    logits, columns, packed = packed_of([Branch(0, (REGION, 7), soft(9, 0.9, 0.1))])
    assert set(Objective().total(logits, columns, packed)) == {"loss", "text", "levels", "answers"}


def test_without_answers_all_is_zero():
    logits, columns, packed = packed_of([])
    found = Objective(rank=1.0).total(logits, columns, packed)
    assert all(value == 0 for value in found.values())


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"ranks": 1.0}, "objective: unknown key 'ranks'. Did you mean 'rank'.*text, levels, head, rank, judgments"),
        ({"text": -0.5}, r"objective.text: got -0.5, expected a weight of at least 0"),
        ({"rank": float("nan")}, r"objective.rank: got nan, expected a weight"),
        ({"judgments": 1.5}, r"objective.judgments: got 1.5, expected the share of pairs .* in \[0, 1\]"),
    ],
)
def test_objectives_that_cannot_be_are_refused(weights, message):
    with pytest.raises(ConfigError, match=message):
        Objective.of(weights)
    assert Objective.of(None) == Objective.of({}) == Objective()
    assert Objective.of({"rank": 0.5}) == Objective(rank=0.5)
