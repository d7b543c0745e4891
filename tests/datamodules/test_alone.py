"""A folder is one run's: held against others, let go when the run ends, however it ends."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys

import pytest

from datamodules.alone import LOCK, Held, alone

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


def test_a_second_writer_of_a_file_is_told_of_the_first(tmp_path):
    lock, file = tmp_path / "new" / ".s.csv.lock", tmp_path / "new" / "s.csv"
    first = Held(lock, file, "another --out")
    told = rf"process {os.getpid()} on .* is writing .*s\.csv: wait until it ends, or choose another --out"
    with pytest.raises(FileExistsError, match=told):
        Held(lock, file, "another --out")
    first.release()
    second = Held(lock, file, "another --out")
    first.release()  # does nothing: it is another's by now
    with pytest.raises(FileExistsError, match="is writing"):
        Held(lock, file, "another --out")
    second.release()
    assert list(lock.parent.iterdir()) == []


def test_a_lock_that_its_holder_removed_meanwhile_holds_nobody_off(tmp_path, monkeypatch):
    """Opened before the holder let go, and locked after: it is nobody's file then, and a third would make another."""
    lock, real, calls = tmp_path / ".lock", fcntl.flock, []

    def removed_first(file, how):
        if not calls:
            lock.unlink()
        calls.append(how)
        return real(file, how)

    monkeypatch.setattr(fcntl, "flock", removed_first)
    held = Held(lock, tmp_path, "another")
    assert len(calls) == 2
    assert lock.read_text().startswith(f"process {os.getpid()} ")
    held.release()
