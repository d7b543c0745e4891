"""Micro-batches by tokens."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from datamodules.budget import WINDOW, BudgetOrder
from datamodules.sampler import CursorBatchSampler

RNG = np.random.default_rng(0)
TOKENS = 100 + 20 * RNG.integers(0, 40, 700)


def epochs(order, count):
    """The batches of `count` epochs, each epoch as a list."""
    found, seen = [[]], 0
    for number in itertools.count():
        found[-1].append(order.batch(number))
        seen += len(found[-1][-1])
        if seen == len(order.tokens):
            if len(found) == count:
                return found
            found, seen = [*found, []], 0


def padded(batch):
    return len(batch) * TOKENS[batch].max()


def test_every_image_once_an_epoch_and_no_batch_beyond_the_budget():
    for batches in epochs(BudgetOrder(TOKENS, 4000, seed=1), 3):
        assert sorted(itertools.chain(*batches)) == list(range(len(TOKENS)))
        assert max(map(padded, batches)) <= 4000


def test_batches_are_full_and_of_like_lengths():
    """Nine tenths of what batches may hold is words, and next to nothing padding."""
    (batches,) = epochs(BudgetOrder(TOKENS, 4000, seed=1), 1)
    words, held = TOKENS.sum(), sum(map(padded, batches))
    assert words / held > 0.97
    assert words / (4000 * len(batches)) > 0.85
    shuffled = RNG.permutation(len(TOKENS))
    alike = len(TOKENS) // len(batches)
    assert words / sum(padded(shuffled[i : i + alike]) for i in range(0, len(TOKENS), alike)) < 0.75


def test_a_batch_is_the_same_whenever_it_is_asked_for():
    order = BudgetOrder(TOKENS, 4000, seed=2)
    found = [order.batch(n) for n in range(400)]
    late = BudgetOrder(TOKENS, 4000, seed=2)
    assert [late.batch(n) for n in (399, 0, 250, 120)] == [found[n] for n in (399, 0, 250, 120)]
    assert [BudgetOrder(TOKENS, 4000, seed=3).batch(n) for n in range(5)] != found[:5]


def test_epochs_differ_in_order_and_in_company():
    first, second = epochs(BudgetOrder(TOKENS, 4000, seed=0), 2)
    assert not {frozenset(b) for b in first} & {frozenset(b) for b in second if len(b) > 1}
    means = [TOKENS[b].mean() for b in first]
    assert abs(np.corrcoef(means[1:], means[:-1])[0, 1]) < 0.3  # lengths come in no order


def test_ranks_share_it():
    order = BudgetOrder(TOKENS, 4000, seed=0)
    alone = list(CursorBatchSampler(order, 200))
    pair = [list(CursorBatchSampler(BudgetOrder(TOKENS, 4000, seed=0), 200, rank=r, world=2)) for r in range(2)]
    assert [b for both in zip(*pair, strict=True) for b in both] == alone
    assert list(CursorBatchSampler(BudgetOrder(TOKENS, 4000, seed=0), 200, start=150)) == alone[150:]


def test_one_image_a_batch_where_no_two_fit():
    (batches,) = epochs(BudgetOrder(TOKENS, int(TOKENS.max()), seed=0), 1)
    assert any(len(b) == 1 for b in batches)
    assert max(map(padded, batches)) <= TOKENS.max()
    (single,) = epochs(BudgetOrder(np.array([5]), 5, seed=0), 1)
    assert single == [[0]]


def test_equal_lengths_are_cut_evenly():
    (batches,) = epochs(BudgetOrder(np.full(WINDOW * 8, 10), 80, seed=0), 1)
    assert {len(b) for b in batches} == {8}


def test_indices_are_plain_integers():
    assert all(type(i) is int for i in BudgetOrder(TOKENS, 4000, seed=0).batch(3))


def test_200_000_images():
    tokens = 1_150 + 65 * np.random.default_rng(1).integers(1, 60, 200_000)
    order = BudgetOrder(tokens, 16_384, seed=0)
    batches = [order.batch(n) for n in range(1000)]
    assert len(set(itertools.chain(*batches))) == sum(map(len, batches))
    assert max(len(b) * tokens[b].max() for b in batches) <= 16_384
    last = order.batch(3 * len(order._epoch(0).turns))  # some epochs on
    assert last == BudgetOrder(tokens, 16_384, seed=0).batch(3 * len(order._epoch(0).turns))


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"image 1 takes 1,200 tokens, and a micro-batch may have 1,000"):
        BudgetOrder(np.array([900, 1200, 1000]), 1000, seed=0)
    with pytest.raises(ValueError, match="no images"):
        BudgetOrder(np.array([], np.int64), 1000, seed=0)
