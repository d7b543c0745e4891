from __future__ import annotations

import itertools

import pytest

from datamodules.sampler import CursorBatchSampler


def flat(batches) -> list[int]:
    return list(itertools.chain(*batches))


@pytest.mark.parametrize(("samples", "batch_size"), [(10, 2), (10, 3), (7, 4), (3, 8), (1, 1)])
def test_every_sample_once_per_epoch(samples, batch_size):
    order = flat(CursorBatchSampler(samples, batch_size, steps=40, seed=5))
    assert len(order) == 40 * batch_size
    for epoch in range(len(order) // samples):
        assert sorted(order[epoch * samples : (epoch + 1) * samples]) == list(range(samples))


def test_epochs_differ():
    order = flat(CursorBatchSampler(20, 20, steps=3, seed=0))
    assert order[:20] != order[20:40] != order[40:]


@pytest.mark.parametrize("start", [0, 1, 6, 11, 12])
def test_starting_late_is_the_tail(start):
    whole = list(CursorBatchSampler(7, 3, steps=12, seed=1))
    late = CursorBatchSampler(7, 3, steps=12, seed=1, start=start)
    assert list(late) == whole[start:]
    assert len(late) == 12


def test_the_order_is_the_seed_and_nothing_else():
    sampler = CursorBatchSampler(30, 4, steps=15, seed=2)
    assert list(sampler) == list(sampler) == list(CursorBatchSampler(30, 4, steps=15, seed=2))
    assert list(sampler) != list(CursorBatchSampler(30, 4, steps=15, seed=3))


def test_a_longer_training_begins_with_the_same_batches():
    assert list(CursorBatchSampler(9, 2, steps=20, seed=0))[:8] == list(CursorBatchSampler(9, 2, steps=8, seed=0))


def test_indices_are_plain_integers():
    assert all(type(i) is int for i in flat(CursorBatchSampler(5, 2, steps=4, seed=0)))


@pytest.mark.parametrize(("samples", "batch_size", "steps"), [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_nothing_to_draw_is_refused(samples, batch_size, steps):
    with pytest.raises(ValueError, match=f"must be at least 1, got {samples}, {batch_size}, {steps}"):
        CursorBatchSampler(samples, batch_size, steps, seed=0)
