"""How an entry ends: a mistake of its user is one line that teaches, a bug is a traceback."""

from __future__ import annotations

import argparse
import atexit
import difflib
import gc
import os
import re
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from datamodules.engines.base import EngineError
from lightning_modules.runs import NonFiniteError, RunError

TRACEBACK = "ROI_IQA_TRACEBACK"
_NOISE = (  # of Lightning, about what is meant or is its own
    r"Found \d+ module\(s\) in eval mode at the start of training",
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
)
STARTER = "ROI_IQA_STARTER"  # in the environment: process id of who started this one, and whose end is its end


class EntryParser(argparse.ArgumentParser):
    """Of an unknown option, command or choice it says which was probably meant."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:  # type: ignore[override]
        """As the base's; an unknown option is an error here, where the options of a command are known."""
        return self._checked(*super().parse_known_args(args, namespace))

    def parse_known_intermixed_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:  # type: ignore[override]
        """As `parse_known_args`, which newer Pythons do not call for it."""
        return self._checked(*super().parse_known_intermixed_args(args, namespace))

    def _checked(self, found: Any, extra: list[str]) -> tuple[Any, list[str]]:
        known = [name for action in self._actions for name in action.option_strings]
        for word in extra:
            if word.startswith("--") and word != "--":
                self.error(f"unrecognized arguments: {word}{_meant(word.partition('=')[0], known)}")
        return found, extra

    def error(self, message: str) -> NoReturn:
        """As the base's, with the nearest of the choices."""
        if choice := re.search(r"invalid choice: '(.*)' \(choose from (.*)\)$", message):
            message += _meant(choice[1], re.findall(r"[\w.-]+", choice[2]))
        super().error(message)


def _meant(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f". Did you mean {near[0]}?" if near else ""


def run_entry(main: Callable[[], object]) -> None:
    """Runs `main`. A ValueError (bad configuration, image, region, checkpoint, tokenizer), a file that is missing, in the way or not
    allowed, a full disk, a package that is not installed, a GPU whose memory is full, and a run or an engine that cannot go on end in
    `error: ...` and exit status 1, with the traceback only where the environment asks for it. Ctrl-C ends in one word."""
    atexit.register(gc.freeze)  # else Python searches all of its objects for garbage as it ends, which takes a third of the time of a start
    for message in _NOISE:
        warnings.filterwarnings("ignore", message, module="lightning")
    starter = os.environ.pop(STARTER, None)  # it is not who starts the processes that this one starts
    if starter is not None:
        leave_with(int(starter))
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)  # as a shell reports it
    except _told() as error:
        if os.environ.get(TRACEBACK):
            raise
        sys.exit(f"error: {error}\n(for the traceback: {TRACEBACK}=1)")


def _told() -> tuple[type[Exception], ...]:
    """What is told in a line. PyTorch's error of a full GPU is asked for where PyTorch has been needed."""
    torch = sys.modules.get("torch")
    full = () if torch is None else (torch.OutOfMemoryError,)
    return (ValueError, OSError, ImportError, RunError, NonFiniteError, EngineError, *full)


def leave_with(parent: int) -> None:
    """From now on ends this process when the one that started it is gone, however it went."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
