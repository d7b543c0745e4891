"""A folder is one run's: held against others, let go when the run ends, however it ends."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from datamodules.alone import LOCK, alone

HOLDS = """
import sys, time
from pathlib import Path
from datamodules.alone import alone
held = alone(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_run_is_refused_until_the_first_ends(tmp_path):
    folder = tmp_path / "new"
    told = r"another run is writing into .*new: wait until it ends, or choose another folder"
    with alone(folder), pytest.raises(FileExistsError, match=told):
        alone(folder)
    alone(folder).close()
    assert [p.name for p in folder.iterdir()] == [LOCK]


def test_a_killed_run_holds_nothing(tmp_path, root):
    with subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path)], cwd=root, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout.readline() == "held\n"
        with pytest.raises(FileExistsError, match="another run is writing into"):
            alone(tmp_path)
        run.send_signal(signal.SIGKILL)
        run.wait(60)
    alone(tmp_path).close()
