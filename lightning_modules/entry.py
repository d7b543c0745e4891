"""How an entry ends: a mistake of its user is one line that teaches, a bug is a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from lightning_modules.runs import NonFiniteError, RunError

TRACEBACK = "ROI_IQA_TRACEBACK"


def run_entry(main: Callable[[], object]) -> None:
    """Runs `main`. A ValueError (bad configuration, image, region, checkpoint, tokenizer), a file that is missing or in the way, and a
    run that cannot go on end in `error: ...` and exit status 1, with the traceback only where the environment asks for it."""
    try:
        main()
    except (ValueError, FileNotFoundError, FileExistsError, RunError, NonFiniteError) as error:
        if os.environ.get(TRACEBACK):
            raise
        sys.exit(f"error: {error}\n(for the traceback: {TRACEBACK}=1)")
