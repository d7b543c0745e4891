"""One command at a time writes into a folder: two would take each other's drafts for what a killed run left."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

LOCK = ".lock"  # an empty file that stays: to remove it would let two runs hold locks of two files of one name


def alone(folder: Path) -> IO[str]:
    """Locks a folder, which is made if it is not there, until what is returned is closed or the process ends, however it ends.

    Raises:
        FileExistsError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / LOCK).open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise FileExistsError(f"another run is writing into {folder}: wait until it ends, or choose another folder") from error
    return file
