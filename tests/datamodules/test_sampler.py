from __future__ import annotations

import itertools

import numpy as np
import pytest

from datamodules.sampler import CursorBatchSampler, ShuffledOrder


def flat(batches) -> list[int]:
    return list(itertools.chain(*batches))


def shuffled(samples, batch_size, batches, seed=0, **place) -> CursorBatchSampler:
    return CursorBatchSampler(ShuffledOrder(samples, batch_size, seed), batches, **place)


@pytest.mark.parametrize(("samples", "batch_size"), [(10, 2), (10, 3), (7, 4), (3, 8), (1, 1)])
def test_every_sample_once_per_epoch(samples, batch_size):
    order = flat(shuffled(samples, batch_size, 40, seed=5))
    assert len(order) == 40 * batch_size
    for epoch in range(len(order) // samples):
        assert sorted(order[epoch * samples : (epoch + 1) * samples]) == list(range(samples))


def test_epochs_differ():
    order = flat(shuffled(20, 20, 3))
    assert order[:20] != order[20:40] != order[40:]


def test_the_order_is_the_published_one():
    """Permutation (seed, epoch) of numpy: a run of an older version can be repeated."""
    expected = [*np.random.default_rng([3, 0]).permutation(5), *np.random.default_rng([3, 1]).permutation(5)]
    assert flat(shuffled(5, 2, 5, seed=3)) == expected


@pytest.mark.parametrize("start", [0, 1, 6, 11, 12])
def test_starting_late_is_the_tail(start):
    whole = list(shuffled(7, 3, 12, seed=1))
    late = shuffled(7, 3, 12, seed=1, start=start)
    assert list(late) == whole[start:]
    assert len(late) == 12


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("start", [0, 12])
def test_ranks_share_what_one_rank_would_read(world, start):
    alone = list(shuffled(7, 3, 24, seed=1, start=start))
    ranks = [list(shuffled(7, 3, 24, seed=1, start=start, rank=r, world=world)) for r in range(world)]
    assert [ranks[i % world][i // world] for i in range(24 - start)] == alone
    assert all(len(shuffled(7, 3, 24, start=start, rank=r, world=world)) == 24 // world for r in range(world))


def test_what_was_counted_before_is_the_trainers_own():
    """Three steps of two ranks, then one rank: the trainer has counted three batches, the cursor stands at six."""
    sampler = shuffled(7, 3, 10, start=6, before=3)
    assert len(sampler) == 3 + 4
    assert list(sampler) == list(shuffled(7, 3, 10))[6:]


def test_a_batch_is_the_same_whenever_it_is_asked_for():
    order = ShuffledOrder(7, 3, seed=2)
    forward = [order.batch(n) for n in range(12)]
    assert [order.batch(n) for n in reversed(range(12))] == forward[::-1]


def test_the_order_is_the_seed_and_nothing_else():
    sampler = shuffled(30, 4, 15, seed=2)
    assert list(sampler) == list(sampler) == list(shuffled(30, 4, 15, seed=2))
    assert list(sampler) != list(shuffled(30, 4, 15, seed=3))


def test_a_longer_training_begins_with_the_same_batches():
    assert list(shuffled(9, 2, 20))[:8] == list(shuffled(9, 2, 8))


def test_indices_are_plain_integers():
    assert all(type(i) is int for i in flat(shuffled(5, 2, 4)))


@pytest.mark.parametrize(("samples", "batch_size"), [(0, 1), (1, 0)])
def test_nothing_to_draw_is_refused(samples, batch_size):
    with pytest.raises(ValueError, match=f"must be at least 1, got {samples} and {batch_size}"):
        ShuffledOrder(samples, batch_size, seed=0)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ({"rank": 2, "world": 2}, "rank 2 of 2: ranks are counted from 0"),
        ({"start": 1, "world": 2}, "micro-batches 1 to 8 cannot be shared by 2 ranks"),
        ({"start": 9}, "micro-batches 9 to 8 cannot be shared by 1 ranks"),
    ],
)
def test_unequal_shares_are_refused(place, message):
    with pytest.raises(ValueError, match=message):
        shuffled(7, 3, 8, **place)
