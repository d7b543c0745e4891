"""Files that visitors can download, in a folder for each visit, which goes with the visit or by its age."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path


class Downloads:
    """Where a visit's files are written.

    Args:
        folder: of all visits, there already.
        age: seconds after which a visit's files are removed when another one's are written, although nobody said that it ended.
        clock: seconds since 1970.
    """

    def __init__(self, folder: Path, age: float, clock: Callable[[], float] = time.time) -> None:
        self.folder, self.age, self.clock = folder, age, clock

    def of(self, key: str) -> Path:
        """The folder of a visit."""
        self._put_away()
        place = self.folder / key
        place.mkdir(exist_ok=True)
        os.utime(place, (self.clock(), self.clock()))
        return place

    def forget(self, key: str) -> None:
        """Removes a visit's files, if there are any."""
        shutil.rmtree(self.folder / key, ignore_errors=True)

    def _put_away(self) -> None:
        for place in self.folder.iterdir():
            try:
                old = place.stat().st_mtime < self.clock() - self.age
            except FileNotFoundError:  # another request was first
                continue
            if old:
                self.forget(place.name)
