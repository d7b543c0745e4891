"""Images stay encoded, a bounded number of them, and are encoded once however many ask."""

from concurrent.futures import ThreadPoolExecutor

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
    engine = Counting()
    looks = Looks([engine], limit=2)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: looks.of("a", photo()), range(32)))
    assert engine.looked == 1
