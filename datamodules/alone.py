"""One command at a time writes into a folder, or goes on with a draft: two would take each other's drafts for what a killed run left."""

from __future__ import annotations

import fcntl
import os
import platform
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


class Held:
    """The lock of what is written in one place: a file beside it that says who holds it, and goes when it is let go.

    Args:
        path: of the lock; its folder is made if it is not there.
        what: is written there.
        instead: what the refused one may do other than wait.

    Raises:
        FileExistsError: another holds it.
    """

    def __init__(self, path: Path, what: Path, instead: str) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+")
        while not self._locked(what, instead):  # who held it removed it between the opening and the lock
            self._file.close()
            self._file = path.open("a+")
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {platform.node()}")
        self._file.flush()

    def release(self) -> None:
        """Lets go; a second time does nothing."""
        if not self._file.closed:
            self.path.unlink(missing_ok=True)  # before it is let go: else it might be the next one's
            self._file.close()

    def _locked(self, what: Path, instead: str) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.seek(0)
            who = self._file.read() or "another process"
            self._file.close()
            raise FileExistsError(f"{who} is writing {what}: wait until it ends, or choose {instead}") from error
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), self.path.stat())
        except FileNotFoundError:
            return False
