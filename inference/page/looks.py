"""What models keep of the images that visitors look at, a bounded number of them."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

from inference.engine import Engine, Looked

Read = tuple[Looked, ...]  # one for each engine


class Looks:
    """Images that are encoded, by key; the longest unused gives way. One that gave way is encoded again when it is asked for: the same
    answers, later. May be used from several threads: who asks for an image that is being encoded waits for it, others do not.

    Args:
        limit: images that are kept.
        age: seconds after which an unused one is let go, when the next is asked for.
    """

    def __init__(self, engines: Sequence[Engine], limit: int, age: float = 3600.0) -> None:
        self.engines, self.limit, self.age = tuple(engines), limit, age
        self._kept: OrderedDict[str, tuple[Future[Read], float]] = OrderedDict()  # with the time of the last use, the longest unused first
        self._turn = threading.Lock()  # of the table, never held while encoding

    def of(self, key: str, image: NDArray[np.uint8]) -> Read:
        """What each engine keeps of an image (H, W, 3) uint8."""
        with self._turn:
            found = self._kept.get(key)
            read: Future[Read] = Future() if found is None else found[0]
            self._kept[key] = read, time.monotonic()
            self._kept.move_to_end(key)
            self._put_away()
        if found is None:
            self._encode(key, image, read)
        return read.result()

    def forget(self, key: str) -> None:
        """Lets go of an image."""
        with self._turn:
            self._kept.pop(key, None)

    def __contains__(self, key: str) -> bool:
        return key in self._kept

    def __len__(self) -> int:
        return len(self._kept)

    def _put_away(self) -> None:
        while len(self._kept) > self.limit or next(iter(self._kept.values()))[1] < time.monotonic() - self.age:
            self._kept.popitem(last=False)

    def _encode(self, key: str, image: NDArray[np.uint8], read: Future[Read]) -> None:
        """Whoever waits gets the same error; whoever comes later tries again."""
        try:
            read.set_result(tuple(engine.look(image) for engine in self.engines))
        except BaseException as error:
            self.forget(key)
            read.set_exception(error)
