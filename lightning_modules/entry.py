"""How an entry ends: a mistake of its user is one line that teaches, a bug is a traceback."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
import time
from collections.abc import Callable

from datamodules.engines.base import EngineError
from lightning_modules.runs import NonFiniteError, RunError

TRACEBACK = "ROI_IQA_TRACEBACK"
STARTER = "ROI_IQA_STARTER"  # in the environment: process id of who started this one, and whose end is its end


def run_entry(main: Callable[[], object]) -> None:
    """Runs `main`. A ValueError (bad configuration, image, region, checkpoint, tokenizer), a file that is missing, in the way or not
    allowed, a full disk, a package that is not installed, a GPU whose memory is full, and a run or an engine that cannot go on end in
    `error: ...` and exit status 1, with the traceback only where the environment asks for it. Ctrl-C ends in one word."""
    atexit.register(gc.freeze)  # else Python searches all of its objects for garbage as it ends, which takes a third of the time of a start
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
