"""What a mask encoder keeps of images: by content, a bounded number of bytes, and once however many ask."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from components.mask_encoders import base
from components.mask_encoders.base import MaskEncoder, Seen


def image(value: int, shape: tuple[int, int] = (4, 6)) -> np.ndarray:
    return np.full((*shape, 3), value, np.uint8)


class Look:
    """Counts what it is shown, and keeps a hundred bytes of it."""

    def __init__(self) -> None:
        self.shown: list[int] = []

    def __call__(self, given: np.ndarray) -> np.ndarray:
        self.shown.append(int(given[0, 0, 0]))
        return np.full(100, given[0, 0, 0])


def test_an_image_is_known_by_its_content():
    look = Look()
    seen = Seen(look)
    for given in (image(1), image(1), image(2), image(1), image(1, (6, 4)), image(1)[:, ::2], image(1, (4, 3))):
        assert (seen.of(given) == given[0, 0, 0]).all()
    assert look.shown == [1, 2, 1, 1]


def test_an_array_that_is_written_to_is_another_image():
    look, given = Look(), image(1)
    seen = Seen(look)
    seen.of(given)
    given[:] = 2
    assert (seen.of(given) == 2).all()
    view = given[:]
    view.flags.writeable = False  # which says nothing of the memory behind it
    seen.of(view)
    given[:] = 3
    assert (seen.of(view) == 3).all()


def test_an_array_that_cannot_be_written_to_is_read_once(monkeypatch):
    read = []
    monkeypatch.setattr(base.np, "ascontiguousarray", lambda given, real=np.ascontiguousarray: read.append(1) or real(given))
    seen, given = Seen(Look()), image(1)
    given.flags.writeable = False
    for _ in range(3):
        seen.of(given)
    assert len(read) == 1
    del given
    other = image(2)
    other.flags.writeable = False
    assert (seen.of(other) == 2).all()
    assert len(seen._known) == 1  # nothing is kept of arrays that are gone


def test_the_longest_unused_gives_way_where_room_is_short():
    look = Look()
    seen = Seen(look, room=250)
    for value in (1, 2, 1, 3, 1, 2):
        seen.of(image(value))
    assert look.shown == [1, 2, 3, 2]
    tight = Seen(look := Look(), room=1)  # the last one stays all the same
    for value in (1, 1, 2, 2):
        tight.of(image(value))
    assert look.shown == [1, 2]
    tight.clear()
    tight.of(image(2))
    assert look.shown == [1, 2, 2]


def test_of_many_that_ask_at_once_one_looks_and_holds_up_nobody_else():
    looked, started, done = [], threading.Event(), threading.Event()

    def look(given: np.ndarray) -> np.ndarray:
        looked.append(given[0, 0, 0])
        if given[0, 0, 0] == 1:
            started.set()
            assert done.wait(60)
        return given

    seen = Seen(look)
    with ThreadPoolExecutor(4) as pool:
        slow = [pool.submit(seen.of, image(1)) for _ in range(3)]
        assert started.wait(60)
        assert (seen.of(image(2)) == 2).all()
        assert not any(one.done() for one in slow)
        done.set()
        assert all((one.result(60) == 1).all() for one in slow)
    assert looked == [1, 2]


def test_an_image_is_not_looked_at_twice_by_two_that_find_it_missing():
    class Slow(OrderedDict):
        def get(self, key):
            found = super().get(key)
            time.sleep(0.002)
            return found

    look = Look()
    seen = Seen(look)
    seen._kept = Slow()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: seen.of(image(n % 2)), range(32)))
    assert sorted(look.shown) == [0, 1]


def test_one_that_failed_is_tried_again():
    calls = []

    def failing(given: np.ndarray) -> np.ndarray:
        calls.append(1)
        raise RuntimeError("no memory")

    seen = Seen(failing)
    for tried in (1, 2):
        with pytest.raises(RuntimeError, match="no memory"):
            seen.of(image(1))
        assert len(calls) == tried


def test_an_encoder_that_keeps_nothing_says_so():
    class Plain(MaskEncoder):
        def forward(self, image, prompts):
            return np.ones((len(prompts), *image.shape[:2]), bool)

        @classmethod
        def tiny(cls):
            return {}

    with pytest.raises(NotImplementedError, match="Plain keeps nothing of an image"):
        Plain().seen.of(image(1))
