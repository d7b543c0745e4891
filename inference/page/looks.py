"""What models keep of the images that visitors look at, a bounded number of them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from inference.engine import Engine, Looked


class Looks:
    """Images that are encoded, by key; the longest unused gives way. One that gave way is encoded again when it is asked for: the same
    answers, later. May be used from several threads.

    Args:
        limit: images that are kept.
    """

    def __init__(self, engines: Sequence[Engine], limit: int) -> None:
        self.engines, self.limit = tuple(engines), limit
        self._kept: OrderedDict[str, tuple[Looked, ...]] = OrderedDict()
        self._turn = threading.Lock()  # also while encoding: two requests for one image encode it once

    def of(self, key: str, image: NDArray[np.uint8]) -> tuple[Looked, ...]:
        """What each engine keeps of an image (H, W, 3) uint8."""
        with self._turn:
            if key not in self._kept:
                self._kept[key] = tuple(engine.look(image) for engine in self.engines)
            self._kept.move_to_end(key)
            while len(self._kept) > self.limit:
                self._kept.popitem(last=False)
            return self._kept[key]

    def forget(self, key: str) -> None:
        """Lets go of an image."""
        with self._turn:
            self._kept.pop(key, None)

    def __contains__(self, key: str) -> bool:
        return key in self._kept

    def __len__(self) -> int:
        return len(self._kept)
