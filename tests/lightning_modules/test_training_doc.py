"""The commands of docs/training.md name experiments and options that exist, and start as many processes as they configure."""

import re
import shlex
import subprocess

import pytest

from configs.schema import load_config
from tests.conftest import ROOT
from tests.test_docs import fenced

SCRIPT = ROOT / "docs" / "slurm.sbatch"
TEXT = (ROOT / "docs" / "training.md").read_text()
LINES = [line for block in fenced(TEXT, "bash") for line in block.splitlines() if "train.py" in line]


def configured(line):
    arguments = shlex.split(line.partition("train.py ")[2])
    return load_config(arguments[0], [a for a in arguments[1:] if "=" in a and not a.startswith("-")]).trainer


def test_commands_are_found():
    assert len(LINES) > 5


@pytest.mark.parametrize("line", LINES)
def test_a_command_loads(line):
    trainer = configured(line)
    if line.startswith("torchrun"):
        started = {name: int(value) for name, value in re.findall(r"--(nnodes|nproc-per-node)=(\d+)", line)}
        assert (started["nnodes"], started["nproc-per-node"]) == (trainer.nodes, trainer.devices)


def test_the_batch_script_starts_what_it_configures():
    text = SCRIPT.read_text()
    asked = {name: int(value) for name, value in re.findall(r"^#SBATCH --(nodes|ntasks-per-node|gpus-per-node)=(\d+)$", text, re.MULTILINE)}
    trainer = configured(text.strip().splitlines()[-1])
    assert asked == {"nodes": trainer.nodes, "ntasks-per-node": trainer.devices, "gpus-per-node": trainer.devices}
    assert {"--requeue", "--signal=USR1@300"} <= set(re.findall(r"^#SBATCH (\S+)$", text, re.MULTILINE))
    subprocess.run(["bash", "-n", SCRIPT], check=True)


def test_what_may_change_is_what_is_said():
    from lightning_modules.runs import PLACEMENT

    (said,) = re.findall(r"\*\*On other devices\.\*\* (.*?) may differ", TEXT)
    assert re.findall(r"`(?:trainer\.)?(\w+)`", said) == list(PLACEMENT)
