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
from contextlib import suppress
from pathlib import Path
from typing import IO

from lightning_modules.entry import STARTER
from lightning_modules.resident import forked_with, resident_files

FORKS = sys.platform == "linux"  # elsewhere the system's libraries do not bear it
HERE = Path(__file__).resolve().parent.parent
_GROUP = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # a terminal or a cluster may send them to a whole group of processes
_READY = "ready\n"


class WarmError(RuntimeError):
    """The process that forks the others is gone, and so is what it had forked."""


class Warm:
    """Runs scripts one after another, each in a process forked from one that has imported `modules`, and that is started when the first is
    run. Closed, it leaves nothing behind.

    Args:
        modules: imported once, before the first script runs. Their import must not use a GPU, whose state does not survive a fork, nor
            start threads that a fork would miss (those of jemalloc and OpenBLAS see to it themselves).
    """

    def __init__(self, modules: Sequence[str]) -> None:
        self.modules = tuple(modules)
        self._server: subprocess.Popen[bytes] | None = None
        self._asks: IO[str] | None = None
        self._answers: IO[str] | None = None
        self._ready = False  # its imports are done, so that what is asked for begins at once

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
            WarmError: the process that forks them was killed meanwhile, and the script ends with it.
            KeyboardInterrupt: Ctrl-C, which the script was told of, too; where it had begun, it has ended.
        """
        self._ask({"script": str(script), "words": list(words), "environment": dict(environment)})
        process = 0
        try:
            process = self._answer()
            begun(process)
            return self._answer()
        except KeyboardInterrupt:
            if self._ready:  # else nothing has begun, and nothing will
                with suppress(WarmError):
                    _wait(process or self._answer())
            raise

    def close(self) -> None:
        """Ends the process, and with it what it has forked."""
        for pipe in (self._asks, self._answers):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        if self._server is not None:
            self._server.kill()  # it may be at its imports, and holds nothing
            self._server.wait()
        self._server = self._asks = self._answers = None
        self._ready = False

    def _ask(self, asked: Mapping[str, object]) -> None:
        for _ in range(2):
            if self._server is None:
                self._begin()
            assert self._asks is not None
            try:
                print(json.dumps(asked), file=self._asks, flush=True)
                return
            except BrokenPipeError:  # it was killed while nothing ran
                self.close()
        raise WarmError("the process that starts trainings was killed twice before it started one")

    def _begin(self) -> None:
        read_asked, write_asked = os.pipe()
        read_answer, write_answer = os.pipe()
        code = f"import sys; sys.path[0] = {str(HERE)!r}; from lightning_modules.warm import serve; "
        code += f"serve({read_asked}, {write_answer}, {self.modules!r})"
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _GROUP)  # which it inherits
        try:
            self._server = subprocess.Popen([sys.executable, "-c", code], pass_fds=(read_asked, write_answer))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(read_asked)
        os.close(write_answer)
        self._asks, self._answers = os.fdopen(write_asked, "w"), os.fdopen(read_answer)

    def _answer(self) -> int:
        assert self._answers is not None
        line = self._answers.readline()
        if line == _READY:
            self._ready = True
            line = self._answers.readline()
        if not line:
            raise WarmError("the process that starts trainings is gone, and the training with it")
        return int(line)


def _wait(process: int) -> None:
    """Until there is no such process; what forked it takes it away."""
    with suppress(ProcessLookupError, PermissionError):
        while process > 0:
            os.kill(process, 0)
            time.sleep(0.05)


def serve(asked: int, answers: int, modules: Sequence[str]) -> None:
    """Forks a process for each script that is asked for by the descriptor `asked`, until that is closed; in the forked process, runs it.

    Signals that mean a whole group of processes are left to the scripts: this process has them blocked since it was started, and a script
    has them from the first moment.
    """
    parent, given = os.getpid(), dict(os.environ)
    for name in modules:
        importlib.import_module(name)
    files = resident_files()
    made = {name: value for name, value in os.environ.items() if given.get(name) != value}  # by libraries, as they were imported
    with os.fdopen(asked) as commands, os.fdopen(answers, "w") as told:
        print(_READY, file=told, end="", flush=True)
        while line := commands.readline():
            child = os.fork()
            if child == 0:
                break
            print(child, file=told, flush=True)
            print(_status(child, commands), file=told, flush=True)
        else:
            os._exit(0)  # else Python searches all that was imported for garbage
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _GROUP)
    forked_with(files)
    _become(parent, made, **json.loads(line))


def _status(child: int, commands: IO[str]) -> int:
    """Waits for the child's end, and ends itself where nobody waits for it any more; the child sees to its own end then."""
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if select.select([commands], [], [], 0.02)[0]:  # nothing is asked for meanwhile: it was closed
            os._exit(1)


def _become(parent: int, made: Mapping[str, str], script: str, words: Sequence[str], environment: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update({**environment, **made, STARTER: str(parent)})  # the script ends when that is gone
    sys.argv, sys.path[0] = [script, *words], str(Path(script).parent)
    runpy.run_path(script, run_name="__main__")
