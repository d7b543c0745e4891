"""Who starts the processes of a training, and how they end together."""

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist

import eval as evaluation_entry
import prepare
import train
from components.registry import ConfigError
from inference.load import load
from lightning_modules.ranks import STATUS, Ranks, _watch, devices, ranks
from lightning_modules.runs import Run, RunError
from tests.lightning_modules.attempts import attempt, free_port, small
from tests.lightning_modules.test_strategy import ALONE, TOGETHER, distance


def test_one_process_has_nobody_to_wait_for():
    made = []
    with ranks(1, 1, cuda=False, group=False, experiment="") as team:
        assert (team.rank, team.world, team.first) == (0, 1, True)
        team.in_turn(lambda: made.append(1))
        team.wait()
        assert team.most(3) == 3
    assert made == [1]
    assert not dist.is_initialized()


@pytest.mark.parametrize("rank", range(4))
def test_data_are_made_by_one_rank_then_by_one_of_each_node(rank, monkeypatch):
    """Two nodes of two: rank 0, then rank 2, then ranks 1 and 3."""
    happened = []
    monkeypatch.setattr(Ranks, "wait", lambda self: happened.append("wait"))
    Ranks(rank, 4, rank % 2).in_turn(lambda: happened.append("make"))
    assert happened.index("make") == {0: 0, 1: 2, 2: 1, 3: 2}[rank]
    assert happened.count("wait") == 3


class Told:
    """As much of a group of ranks as deciding asks for: `answers` are the largest values that the ranks have given."""

    def __init__(self, rank, *answers):
        self.rank, self.first, self.answers, self.given = rank, rank == 0, list(answers), []

    def most(self, value):
        self.given.append(value)
        return self.answers.pop(0)

    agree = Ranks.agree


@pytest.mark.parametrize("rank", [0, 1])
def test_rank_0_decides_whether_they_go_on(tmp_path, rank):
    run = Run(tmp_path)
    run.checkpoint.parent.mkdir()
    run.checkpoint.touch()
    stale = Told(rank, int(rank == 0), 0)  # this rank alone sees a checkpoint
    assert train.resumed(run, stale) is (rank == 0)
    assert stale.given == [int(rank == 0), 0]


def test_a_rank_that_does_not_see_the_checkpoint_is_named_on_all(tmp_path):
    run = Run(tmp_path)
    blind = Told(1, 1, 2)
    with pytest.raises(RunError, match=rf"rank 1 does not see {run.checkpoint}, from which rank 0 would go on: outputs/ must be on"):
        train.resumed(run, blind)
    assert blind.given == [0, 2]
    run.checkpoint.parent.mkdir()
    run.checkpoint.touch()
    with pytest.raises(RunError, match="rank 1 does not see"):
        train.resumed(run, Told(0, 1, 2))


@pytest.mark.parametrize(("status", "ended"), [(0, []), (STATUS, []), (1, [1]), (-9, [1])])
def test_a_rank_that_was_told_to_go_has_not_failed(status, ended, monkeypatch, capsys):
    """Looked at three times; where another has failed, this one ends within the grace that it has."""
    looks, left, killed = iter([False, False, True, True]), [], []
    over = SimpleNamespace(wait=lambda seconds: next(looks))
    monkeypatch.setattr(os, "_exit", left.append)
    if ended:
        looks = iter([False, False])
    _watch([SimpleNamespace(poll=lambda: status, kill=lambda: killed.append(1))], over)
    assert left == killed == ended
    assert ("rank 1 has failed" in capsys.readouterr().err) is bool(ended)


def test_how_many(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert [devices(2, cuda=True), devices(8, cuda=False), devices("auto", cuda=True), devices("auto", cuda=False)] == [2, 8, 4, 1]
    with pytest.raises(ConfigError, match=r"trainer\.devices is 8, and torch sees 4 GPUs"):
        devices(8, cuda=True)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert devices("auto", cuda=True) == 3


def test_several_nodes_must_be_started():
    with pytest.raises(ConfigError, match=r"trainer\.nodes is 2: start the processes of all nodes by torchrun or srun"), _team(1, 2):
        pass


def test_what_was_started_must_be_what_was_configured(monkeypatch):
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r"4 processes were started, but trainer.devices=2 on trainer.nodes=1 makes 2"), _team(2, 1):
        pass


def _team(local, nodes):
    return ranks(local, nodes, cuda=False, group=False, experiment="")


def test_a_rank_that_fails_ends_the_others(root):
    """Rank 1 is given a configuration that it refuses; rank 0 would wait for it."""
    code = "from lightning_modules.ranks import ranks\nwith ranks(2, 1, cuda=False, group=False, experiment='nonsense') as team: pass"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    assert "must hold a mapping of keys" in done.stderr
    assert "rank 1 has failed" in done.stderr


def test_the_entry_starts_the_other_ranks(tmp_path):
    """And a model that was trained in shards is measured, measured again and saved like any other."""
    run = Run(tmp_path / "two")
    metrics = train.main(small(tmp_path, "two", "trainer.steps=2", "trainer.devices=2", "trainer.strategy=fsdp"))
    assert json.loads(run.metrics.read_text()) == json.loads(json.dumps(metrics))
    assert not dist.is_initialized()
    assert "LOCAL_RANK" not in os.environ
    assert run.checkpoint.is_dir()
    assert evaluation_entry.main([str(run.folder)]) == metrics
    prepare.main(["save", str(run.folder), str(tmp_path / "saved")])
    one, other = (load(folder).state_dict() for folder in (run.folder, tmp_path / "saved"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_two_nodes_are_killed_and_go_on(tmp_path, root):
    """Two agents of torchrun on this machine, each with one process, as two nodes would have."""
    steps = ["trainer.steps=12", "trainer.val_every=12"]
    assert attempt(small(tmp_path, "alone", *steps, ALONE)) == [0]
    arguments = small(tmp_path, "nodes", *steps, TOGETHER, "trainer.nodes=2")
    run = Run(tmp_path / "nodes")

    first = _nodes(root, arguments)
    deadline = time.monotonic() + 300
    while not run.checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    for agent in first:
        os.killpg(agent.pid, signal.SIGKILL)
        agent.wait()
    assert run.resumable()

    second = _nodes(root, arguments)
    assert [agent.wait(300) for agent in second] == [0, 0]
    assert run.metrics.exists()
    assert distance(Run(tmp_path / "alone"), run) < 1e-5


def _nodes(root, arguments):
    port = free_port()
    common = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [*common, f"--master-port={port}", f"--node-rank={node}", "train.py", *arguments],
            cwd=root,
            env=environment,
            start_new_session=True,
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        for node in range(2)
    ]
