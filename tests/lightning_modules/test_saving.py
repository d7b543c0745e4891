"""When a training is told to go: what is said, what SLURM is asked, and that signals are given back."""

import os
import signal
from types import SimpleNamespace

import pytest
from lightning.fabric.plugins.environments import SLURMEnvironment

from lightning_modules.ranks import Ranks, _outside
from lightning_modules.saving import STATUS, PreemptedError, Saving

JOB = {"SLURM_JOB_ID": "77", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}
JOB |= {"SLURM_PROCID": "1", "SLURM_LOCALID": "1"}


class Loop(SimpleNamespace):
    """As much of a trainer as saving asks for."""

    loggers = ()
    accumulate_grad_batches = 2

    def save_checkpoint(self, path):
        path.write_text(str(self.global_step))


def start(saving, loop, batch):
    saving.on_train_batch_start(loop, None, None, batch)


def test_a_step_is_saved_once_before_the_next(tmp_path):
    saving, loop = Saving(tmp_path / "last.ckpt", 2, Ranks()), Loop(global_step=0)
    saved = []
    for batch in range(10):
        loop.global_step = batch // 2
        start(saving, loop, batch)
        saved.append(saving.path.read_text() if saving.path.exists() else "")
    assert saved == ["", "", "", "", "2", "2", "2", "2", "4", "4"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_told_to_go(tmp_path, number, capsys, monkeypatch):
    for name in JOB:
        monkeypatch.delenv(name, raising=False)
    before = signal.getsignal(number)
    saving, loop = Saving(tmp_path / "last.ckpt", 100, Ranks()), Loop(global_step=3)
    saving.on_train_start(loop, None)
    os.kill(os.getpid(), number)
    start(saving, loop, 7)  # in the middle of a step
    loop.global_step = 4
    with pytest.raises(PreemptedError) as left:
        start(saving, loop, 8)
    assert left.value.code == STATUS
    assert saving.path.read_text() == "4"
    assert (
        f"{signal.Signals(number).name}: saved at step 4 in {saving.path}; the same command goes on from there" in capsys.readouterr().err
    )
    saving.on_exception(loop, None, left.value)
    assert signal.getsignal(number) == before


@pytest.mark.parametrize(
    ("array", "status", "said"),
    [
        ({}, 0, "job 77 was put back into its queue"),
        ({"SLURM_ARRAY_JOB_ID": "70", "SLURM_ARRAY_TASK_ID": "4"}, 0, "job 70_4 was put back into its queue"),
        ({}, 1, "scontrol requeue 77 failed: no"),
    ],
)
def test_slurm_is_asked_for_the_queue_again(tmp_path, array, status, said, capsys, monkeypatch):
    asked = tmp_path / "asked"
    command = tmp_path / "scontrol"
    command.write_text(f'#!/bin/sh\necho "$@" >> {asked}\necho no >&2\nexit {status}\n')
    command.chmod(0o755)
    for name, value in {**JOB, **array, "PATH": f"{tmp_path}:{os.environ['PATH']}"}.items():
        monkeypatch.setenv(name, value)
    for ranks in (Ranks(rank=1, world=1), Ranks()):  # the first alone asks
        with pytest.raises(PreemptedError):
            Saving(tmp_path / "last.ckpt", 1, ranks)._leave_if(signal.SIGUSR1, 5)
    with pytest.raises(PreemptedError):
        Saving(tmp_path / "last.ckpt", 1, Ranks())._leave_if(signal.SIGTERM, 5)  # who sent that decides what becomes of the job
    assert asked.read_text().splitlines() == [f"requeue {said.split()[1] if status == 0 else 77}"]
    assert said in capsys.readouterr().err


def test_lightning_does_not_requeue_as_well(monkeypatch):
    """Its handler saves in the middle of a step, in a file of its own."""
    for name, value in JOB.items():
        monkeypatch.setenv(name, value)
    found = _outside()
    assert isinstance(found, SLURMEnvironment)
    assert not found.auto_requeue
    monkeypatch.setenv("SLURM_NTASKS", "1")  # sbatch without srun: the processes are started here
    assert _outside() is None
