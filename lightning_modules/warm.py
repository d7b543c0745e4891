"""A process that has imported what trainings need, and becomes each of them by forking: the imports take as long as a hundred small steps.

What is forked is a process of its own, as if it had been started: its memory, seeds and failures are its alone.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from lightning_modules.entry import STARTER

FORKS = sys.platform == "linux"  # elsewhere the system's libraries do not bear it
HERE = Path(__file__).resolve().parent.parent
_TOLD = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # to a whole group of processes, where a terminal or a cluster does it


class WarmError(RuntimeError):
    """The process that forks the others is gone, and so is what it had forked."""


class Warm:
    """Runs scripts one after another, each in a process forked from one that has imported `modules`, and that is started when the first is
    run. Closed, it leaves nothing behind.

    Args:
        modules: imported once, before the first script runs. Their import may start no threads of its own that a fork would miss.
    """

    def __init__(self, modules: Sequence[str]) -> None:
        self.modules = tuple(modules)
        self._server: subprocess.Popen[bytes] | None = None
        self._asks: IO[str] | None = None
        self._answers: IO[str] | None = None

    def __enter__(self) -> Warm:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, script: Path, words: Sequence[str], environment: Mapping[str, str], begun: Callable[[int], None]) -> int:
        """Runs `script` with the arguments `words`, and waits for its end.

        Args:
            environment: variables, all of them.
            begun: is told the id of its process.

        Returns:
            Its exit status; of one that was killed, the signal as a negative number.

        Raises:
            WarmError: the process that forks them was killed.
            KeyboardInterrupt: Ctrl-C, which the script was told of, too; it has ended.
        """
        if self._server is None:
            self._begin()
        assert self._asks is not None
        asked = {"script": str(script), "words": list(words), "environment": dict(environment)}
        try:
            print(json.dumps(asked), file=self._asks, flush=True)
            begun(int(self._answer()))
        except BrokenPipeError as error:
            raise WarmError(f"the process that was to start {script.name} is gone") from error
        try:
            return int(self._answer())
        except KeyboardInterrupt:
            self._answer()
            raise

    def close(self) -> None:
        """Ends the process, and with it what it has forked."""
        for pipe in (self._asks, self._answers):
            if pipe is not None:
                pipe.close()
        if self._server is not None:
            self._server.wait()
        self._server = self._asks = self._answers = None

    def _begin(self) -> None:
        read_asked, write_asked = os.pipe()
        read_answer, write_answer = os.pipe()
        code = f"import sys; sys.path[0] = {str(HERE)!r}; from lightning_modules.warm import serve; "
        code += f"serve({read_asked}, {write_answer}, {self.modules!r})"
        self._server = subprocess.Popen([sys.executable, "-c", code], pass_fds=(read_asked, write_answer))
        os.close(read_asked)
        os.close(write_answer)
        self._asks, self._answers = os.fdopen(write_asked, "w"), os.fdopen(read_answer)

    def _answer(self) -> str:
        assert self._answers is not None
        line = self._answers.readline()
        if not line:
            raise WarmError("the process that starts trainings is gone, and the training with it")
        return line


def serve(asked: int, answers: int, modules: Sequence[str]) -> None:
    """Forks a process for each script that is asked for by the descriptor `asked`, until that is closed; in the forked process, runs it.

    Signals that mean all are left to the scripts, which take them as if this process were not there.
    """
    before, parent = {number: signal.signal(number, signal.SIG_IGN) for number in _TOLD}, os.getpid()
    for name in modules:
        importlib.import_module(name)
    with os.fdopen(asked) as commands, os.fdopen(answers, "w") as told:
        while line := commands.readline():
            child = os.fork()
            if child == 0:
                break
            print(child, file=told, flush=True)
            print(_status(child, commands), file=told, flush=True)
        else:
            os._exit(0)  # else Python searches all that was imported for garbage
    for number, handler in before.items():
        signal.signal(number, handler)
    _become(parent, **json.loads(line))


def _status(child: int, commands: IO[str]) -> int:
    """Waits for the child's end, and ends itself where nobody waits for it any more; the child sees to its own end then."""
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if select.select([commands], [], [], 0)[0]:  # nothing is asked for meanwhile: it was closed
            os._exit(1)
        time.sleep(0.02)


def _become(parent: int, script: str, words: Sequence[str], environment: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update({**environment, STARTER: str(parent)})  # the script ends when that is gone
    sys.argv, sys.path[0] = [script, *words], str(Path(script).parent)
    runpy.run_path(script, run_name="__main__")
