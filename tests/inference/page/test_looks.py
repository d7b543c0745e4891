"""Images stay encoded, a bounded number of them, and are encoded once however many ask."""

import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

import pytest

from inference.page.looks import Looks
from tests.inference.page.models import photo


class Counting:
    """Stands for an engine: counts what it encodes."""

    def __init__(self):
        self.looked = 0

    def look(self, image):
        self.looked += 1
        return image


def test_the_longest_unused_gives_way_and_comes_back():
    engine = Counting()
    looks = Looks([engine, engine], limit=2)
    for key in ("a", "b", "a", "c"):
        looks.of(key, photo())
    assert (len(looks), "b" in looks, "a" in looks, engine.looked) == (2, False, True, 6)
    looks.of("b", photo())
    assert engine.looked == 8
    looks.forget("b")
    looks.forget("never there")
    assert "b" not in looks


def test_many_that_ask_at_once_encode_it_once():
    class Slow(OrderedDict):
        """A table in which looking something up takes long enough for another to come."""

        def get(self, key):
            found = super().get(key)
            time.sleep(0.002)
            return found

    engine = Counting()
    looks = Looks([engine], limit=2)
    looks._kept = Slow()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: looks.of("a", photo()), range(32)))
    assert engine.looked == 1


def test_an_image_that_is_being_encoded_holds_nobody_up():
    started, done = threading.Event(), threading.Event()

    class Slow(Counting):
        def look(self, image):
            if image.size == 0:
                started.set()
                assert done.wait(60)
            return super().look(image)

    looks = Looks([Slow()], limit=3)
    looks.of("there", photo())
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(looks.of, "new", photo()[:0])
        assert started.wait(60)
        looks.of("there", photo())
        looks.forget("there")
        assert not slow.done()
        done.set()
        assert slow.result()[0].size == 0


def test_one_that_failed_is_tried_again():
    class Failing(Counting):
        def look(self, image):
            super().look(image)
            raise RuntimeError("no memory")

    engine = Failing()
    looks = Looks([engine], limit=2)
    for tried in (1, 2):
        with pytest.raises(RuntimeError, match="no memory"):
            looks.of("a", photo())
        assert (engine.looked, len(looks)) == (tried, 0)


def test_what_is_unused_for_long_is_let_go(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("inference.page.looks.time.monotonic", lambda: now[0])
    looks = Looks([Counting()], limit=5, age=60)
    for key, later in (("a", 0), ("b", 40), ("c", 40)):
        now[0] += later
        looks.of(key, photo())
    assert ("a" in looks, "b" in looks, "c" in looks) == (False, True, True)
