"""A resume in mid-epoch over tables: exactly the samples that were not seen, for any number of loader workers and ranks."""

from __future__ import annotations

from collections import Counter

import pytest

from components.preprocess import Preprocess
from datamodules.collate import Collate
from datamodules.datasets.base import DATASETS
from datamodules.roi_iqa import CursorLoader
from datamodules.sampler import CursorBatchSampler, ShuffledOrder

BATCH = 3
COLLATE = Collate(Preprocess(16, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)), 0)


@pytest.fixture(scope="module")
def samples():
    dataset = DATASETS.build({"plugin": "indexed", **DATASETS.get("indexed").tiny(), "regions": 1})
    dataset.prepare()
    return dataset.split("train")


def consumed(samples, start, stop, world, workers, steps):
    """The regions of the first `steps` batches of each rank, from micro-batch `start` on; then the loaders are dropped."""
    order, found = ShuffledOrder(len(samples), BATCH, 7), []
    for rank in range(world):
        sampler = CursorBatchSampler(order, stop, start, rank, world)
        loader = CursorLoader(samples, batch_sampler=sampler, collate_fn=COLLATE, num_workers=workers)
        batches = iter(loader)
        found += [region for _ in range(steps) for ids in next(batches).ids for region in ids]
    return found


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("world", [1, 2])
def test_what_was_not_seen_is_seen_and_nothing_twice(samples, workers, world):
    """Two epochs of five batches; training stops after four of them, in the first epoch, with more of them read ahead."""
    assert len(samples) == 5 * BATCH
    regions = {r.id for i in range(len(samples)) for r in samples[i].record.regions}
    before = consumed(samples, 0, 10, world, workers, 4 // world)
    after = consumed(samples, 4, 10, world, workers, 6 // world)
    assert len(set(before)) == len(before) == 4 * BATCH
    assert Counter(after) - Counter(regions) == Counter(regions - set(before))  # the rest of the first epoch, besides all of the second
    assert Counter(before + after) == Counter(dict.fromkeys(regions, 2))
