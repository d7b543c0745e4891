"""A resume in mid-epoch over tables: exactly the samples that were not seen, for any number of loader workers and ranks, read as training
reads: out of the copy of a table in the cache, which all ranks share, and out of a table that holds its images, which has no copy.

The cursor is what Lightning has saved of the data module and gives back to it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter

import pytest
import torch

from tests.conftest import ROOT
from tests.datamodules import resuming
from tests.datamodules.resuming import BATCH, CHECKPOINT, COPIED, MICRO_BATCHES, STOP, WORKERS
from tests.lightning_modules.attempts import free_port


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Folder of the data, and the names of its training regions as they are read where there is a copy."""
    folder = tmp_path_factory.mktemp("data")
    return folder, resuming.write_data(folder)


@pytest.fixture(scope="module", params=[1, 2], ids=["1 rank", "2 ranks"])
def trained(request, tables, tmp_path_factory):
    """Folder, number of ranks, and what each rank says."""
    folder, world = tmp_path_factory.mktemp("resume"), request.param
    if world == 1:
        return folder, world, [resuming.attempts(folder, tables[0])]
    started = {"TORCHELASTIC_RUN_ID": "x", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(world)}
    command = [sys.executable, "-m", "tests.datamodules.resuming", str(folder), str(tables[0])]
    ranks = [
        subprocess.Popen(command, cwd=ROOT, env={**os.environ, **started, **{k: str(r) for k in ("RANK", "LOCAL_RANK")}})
        for r in range(world)
    ]
    assert [rank.wait(300) for rank in ranks] == [0] * world
    return folder, world, [json.loads((folder / f"rank{r}.json").read_text()) for r in range(world)]


@pytest.fixture(scope="module")
def regions(tables):
    folder, found = tables
    assert len(resuming.data(folder, 1, 0).dataset.split("train")) == len(found) == 5 * BATCH
    assert 0 < sum(COPIED in region for region in found) < len(found)
    return found


@pytest.mark.parametrize("workers", WORKERS)
def test_what_was_not_seen_is_seen_and_nothing_twice(trained, regions, workers):
    """Two epochs of five batches; the power goes after four of them, in the first epoch."""
    _, world, ranks = trained
    before, after = ([region for rank in ranks for region in rank[str(workers)][when]] for when in ("before", "after"))
    assert len(set(before)) == len(before) == STOP * BATCH
    assert Counter(after) - Counter(regions) == Counter(regions - set(before))  # the rest of the first epoch, besides all of the second
    assert Counter(before + after) == Counter(dict.fromkeys(regions, 2))
    assert [len(rank[str(workers)]["before"]) for rank in ranks] == [STOP * BATCH // world] * world


def test_no_other_copy_was_made(trained, tables):
    """Of neither table, by any rank."""
    (copy,) = (tables[0] / "cache" / "rows").iterdir()
    assert copy.name.startswith("beside-")


@pytest.mark.parametrize("workers", WORKERS)
def test_batches_that_were_read_ahead_are_not_counted_as_seen(trained, workers):
    """Where processes read, more has been asked of the order than training was shown; the checkpoint counts what training was shown."""
    folder, world, ranks = trained
    asked = sorted(number for rank in ranks for number in rank[str(workers)]["asked"])
    assert asked == list(range(min(STOP + 2 * workers * world, MICRO_BATCHES)))  # two batches ahead in each process
    state = torch.load(folder / str(workers) / CHECKPOINT, weights_only=True)["RoiIQA"]
    assert state == {"step": STOP // world, "cursor": STOP, "batches_per_step": world}
