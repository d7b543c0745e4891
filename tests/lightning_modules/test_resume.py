"""Killed at any moment, a training goes on to the same curve, weights and optimizer, bit for bit."""

import random
import signal

import pandas as pd
import pytest
import torch

from components.checkpoints import read
from lightning_modules.runs import Run
from lightning_modules.saving import STATUS
from tests.lightning_modules.attempts import LORA, attempt, small


def equal(a, b, where=""):
    """Bit for bit, through mappings and lists."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            equal(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for place, (x, y) in enumerate(zip(a, b, strict=True)):
            equal(x, y, f"{where}.{place}")
    else:
        assert a == b, where


def same_run(one, other):
    first, second = (read(run.checkpoint) for run in (one, other))
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "RoiIQA", "global_step"):
        equal(first[key], second[key], key)
    pd.testing.assert_frame_equal(*(pd.read_csv(run.curves()) for run in (one, other)), check_exact=True)


@pytest.fixture(scope="module", params=[1, 2], ids=["1 rank", "2 ranks"])
def setting(request, tmp_path_factory):
    """Ranks, the arguments of a run of some name, and the run that nobody disturbed. Two micro-batches in a step, and dropout."""
    world = request.param
    folder = tmp_path_factory.mktemp("runs")

    def arguments(name, workers=0):
        return small(folder, name, *LORA, f"trainer.workers={workers}", f"trainer.accumulate={2 // world}")

    assert attempt(arguments("whole"), world) == [0] * world
    return world, arguments, Run(folder / "whole")


def test_killed_at_random_moments(setting):
    """SIGKILL to a random rank, with and without loader processes."""
    world, arguments, whole = setting
    chance = random.Random(world)
    for workers, step in zip((0, 2), sorted(chance.sample(range(1, 8), 2)), strict=True):
        place = chance.choice(["loss", "update", "write"])
        blow = (place, step, 0 if place == "write" else chance.randrange(world))
        statuses = attempt(arguments("killed", workers if world == 1 else 0), world, blow)
        assert -signal.SIGKILL in statuses, (blow, statuses)
    assert attempt(arguments("killed"), world) == [0] * world
    same_run(whole, Run(whole.folder.parent / "killed"))


def test_told_to_go(setting):
    """SIGTERM or SIGUSR1 to the last rank: the step is finished and saved, and all leave with a status of their own."""
    world, arguments, whole = setting
    told = Run(whole.folder.parent / "told")
    number = {1: signal.SIGUSR1, 2: signal.SIGTERM}[world]
    assert attempt(arguments("told"), world, ("loss", 4, world - 1), number) == [STATUS] * world
    assert read(told.checkpoint)["global_step"] == 5
    assert attempt(arguments("told"), world) == [0] * world
    same_run(whole, told)


def test_a_finished_training_has_nothing_left(setting):
    """Killed while its result is measured, it goes on to that at once."""
    world, arguments, whole = setting
    before, curves = read(whole.checkpoint), whole.curves().read_text()
    assert attempt(arguments("whole"), world) == [0] * world
    equal(before["state_dict"], read(whole.checkpoint)["state_dict"])
    assert whole.curves().read_text() == curves
