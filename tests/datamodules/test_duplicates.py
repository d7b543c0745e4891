"""What stands twice is found in constant memory for each image, in one pass, and as a comparison of all pairs has it."""

from __future__ import annotations

import random
import tracemalloc
from collections import Counter

import pytest

from datamodules.duplicates import Copies
from datamodules.findings import SHOWN, Report
from datamodules.records import SPLITS


def compared(images):
    """Numbers of the images that must be left out, and how many finds of each sort there are, by pairs."""
    left, counts = set(), Counter()
    for number, (marks, split) in enumerate(images):
        same = [[m for m, (theirs, _) in enumerate(images[:number]) if mark in theirs] for mark in marks]
        found = [m for copies in same for m in copies]
        if found:
            counts["image twice" if images[found[0]][1] == split else "image twice in splits"] += 1
            ranks = {m: SPLITS.index(images[m][1]) for m in (*found, number) if images[m][1] in SPLITS}
            left |= {m for m, rank in ranks.items() if rank < max(ranks.values())}
    return left, counts


@pytest.mark.parametrize("seed", range(100))
def test_as_a_comparison_of_all_pairs_has_it(seed):
    draw, report, left = random.Random(seed), Report(), set()
    images = [(draw.sample("abcdef", draw.choice((1, 1, 2))), draw.choice((*SPLITS, "train", "no split"))) for _ in range(14)]
    copies = Copies(report, str, lambda number, kind: left.add(number))
    for number, (marks, split) in enumerate(images):
        copies.add(number, marks, split, f"here {number}")
    assert (left, report.counts) == compared(images)


def test_an_image_that_stands_once_takes_some_bytes():
    copies = Copies(Report(), pytest.fail, pytest.fail)
    tracemalloc.start()
    for number in range(10_000):
        copies.add(number, [f"crc32:{number:08x}:300000"], "train", "here")
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert taken < 200 * 10_000


def test_of_many_copies_few_are_named_and_each_is_left_out_once():
    named, left = [], []
    copies = Copies(Report(), lambda number: named.append(number) or f"there {number}", lambda number, kind: left.append(number))
    for number in range(1000):
        copies.add(number, ["one"], "train", "here")
    assert (named, left) == ([0] * SHOWN, [])
    for number in (1000, 1001):
        copies.add(number, ["one"], "test", "here")
    assert left == list(range(1000))
