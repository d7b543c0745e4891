"""Runs that are trained one after another, each by a process of its own, and measured by another: memory, seeds and failures are its alone.

A run that is finished is left as it is, one that was interrupted goes on, and one that fails is told of and left behind.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType

import torch

from lightning_modules.entry import STARTER
from lightning_modules.lineage import outdated
from lightning_modules.runs import FINISHED, Run, RunError, write_text
from lightning_modules.saving import STATUS, PreemptedError
from lightning_modules.warm import FORKS, Warm, WarmError

ROOT = Path(__file__).resolve().parent.parent
PRELOADED = ("train", "eval", "lightning.pytorch", "datamodules.roi_iqa", "lightning_modules.scorer")  # by what forks them
Start = Callable[[Path], int]


def train_all(configs: Mapping[Path, str], start: Start | None = None) -> dict[Path, int]:
    """Trains what is not finished, in order.

    Args:
        configs: folder of each run -> its resolved configuration as YAML.
        start: trains and measures one, given its config.yaml, and returns its exit status; None for `start_process`.

    Returns:
        The folders of those that failed, with their exit status.

    Raises:
        RunError: a folder holds a run of another configuration, or one that stands on what was trained again since; nothing has been
            trained then.
        PreemptedError: this process or a training was told to go (SIGTERM, SIGUSR1); the same call goes on from there.
    """
    for folder, config in configs.items():
        Run(folder).check(config)
    _check_lineage(configs)
    left = [folder for folder in configs if not Run(folder).metrics.exists()]
    failed: dict[Path, int] = {}
    taken: list[float] = []
    forks = FORKS and not torch.cuda.is_available()  # whose use by a library, as it is imported, would not survive a fork
    with _noting([]) as told, Warm(PRELOADED) as warm:
        for i, folder in enumerate(configs, 1):
            place = f"variant {i} of {len(configs)}, {folder.name}"
            if folder not in left:
                print(f"{place}: finished before", flush=True)
                continue
            print(f"\n{place}: {_time_left(taken, len(left) - len(taken))}", flush=True)
            began = time.monotonic()
            status = _trained(Run(folder), configs[folder], start or partial(start_process, warm=warm if forks else None))
            if told:
                raise PreemptedError(STATUS)
            taken.append(time.monotonic() - began)
            if status:
                failed[folder] = status
                print(f"{place}: failed with status {status}, see above; the others go on", file=sys.stderr, flush=True)
    return failed


def states(configs: Mapping[Path, str]) -> dict[Path, str]:
    """How far each run is: finished, begun or to be trained; and of one that `train_all` refuses, that and why. Changes nothing.

    Args:
        configs: as `train_all` takes them.
    """
    old = outdated(configs)
    return {folder: _state(folder, config, old.get(folder)) for folder, config in configs.items()}


def _state(folder: Path, config: str, below: Path | None) -> str:
    run = Run(folder)
    try:
        run.check(config)
    except RunError as error:
        return f"refused: {error}"
    if below is not None:
        return f"refused: it stands on {below}, which was trained again later or is to be: remove {folder}"
    return FINISHED if run.metrics.exists() else "begun" if run.checkpoint.exists() else "to be trained"


def _check_lineage(configs: Mapping[Path, str]) -> None:
    if old := outdated(configs):
        first, below = next(iter(old.items()))
        raise RunError(
            f"{first} stands on {below}, which was trained again later or is to be: their numbers would not belong together. Remove "
            f"{', '.join(map(str, old))}; the same command then trains anew what is missing"
        )


def _trained(run: Run, config: str, start: Start) -> int:
    run.folder.mkdir(parents=True, exist_ok=True)
    write_text(run.config, config)
    status = start(run.config)
    if status == STATUS:
        raise PreemptedError(STATUS)
    return status or int(not run.metrics.exists())


def _time_left(taken: Sequence[float], left: int) -> str:
    """By the mean of those that were trained."""
    if not taken:
        return "no estimate of the time left before the first has been trained"
    minutes = left * sum(taken) / len(taken) / 60
    return f"about {minutes:.0f} min left" if minutes >= 1 else "less than a minute left"


def start_process(config: Path, warm: Warm | None = None) -> int:
    """Trains in a process that is told what this one is told, and ends with it; then measures in another, whose peak of memory is that of
    scoring.

    Args:
        warm: forks both; None starts them, which takes seconds longer for each.

    Returns:
        Its exit status; where it was told to go, always that of a training that goes on later, though it may just have ended by itself:
        nothing may be begun after that.
    """
    commands = [["train.py", str(config), "--no-evaluation"], ["eval.py", str(config.parent)]]
    running: list[int] = []
    status = 0
    with _noting(running) as told:
        for entry, *words in commands:
            if status or told:
                break

            def begun(process: int) -> None:
                running[:] = [process]
                for number in told:  # before there was anybody to tell
                    _tell(process, number)

            try:
                status = _run(ROOT / entry, words, begun, warm)
            finally:
                running.clear()
    return STATUS if told else status


def _run(script: Path, words: Sequence[str], begun: Callable[[int], None], warm: Warm | None) -> int:
    if warm is not None:
        try:
            return warm.run(script, words, os.environ, begun)
        except WarmError as error:
            print(f"{script.name} {shlex.join(words)}: {error}", file=sys.stderr, flush=True)
            warm.close()
            return 1
    process = subprocess.Popen([sys.executable, str(script), *words], env={**os.environ, STARTER: str(os.getpid())})
    begun(process.pid)
    try:
        return process.wait()
    except KeyboardInterrupt:  # which the terminal has sent to the process, too
        process.wait()
        raise


def _tell(process: int, number: int) -> None:
    """Sends a signal, unless the process has ended meanwhile."""
    with suppress(ProcessLookupError):
        os.kill(process, number)


@contextmanager
def _noting(running: Sequence[int]) -> Iterator[list[int]]:
    """SIGTERM and SIGUSR1 end nothing here and go to what is running; gives those that came."""
    told: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        told.append(number)
        for process in running:
            _tell(process, number)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
