"""A chart says in words what it shows, and puts what it shows where it belongs."""

import re

import pytest

from components.tasks import RoiScore
from inference.page.chart import chart, in_words

LEVELS = {"bad": 0.0, "poor": 0.1, "fair": 0.2, "good": 0.3, "excellent": 0.4}
SCORE = RoiScore("quality", 0.75, 0.25, "The quality is good.", LEVELS)


def test_it_is_said_in_words():
    assert in_words(SCORE) == "quality 0.75 of 1, standard deviation 0.25; bad 0%, poor 10%, fair 20%, good 30%, excellent 40%"
    assert in_words(RoiScore("importance", 0.5)) == "importance 0.50 of 1"
    assert in_words(RoiScore("quality", None, parsed=False)) == "quality: not understood"
    assert f'aria-label="{in_words(SCORE)}"' in chart(SCORE)


def test_the_mean_lies_above_the_level_that_it_equals_and_the_spread_around_it():
    svg = chart(SCORE)
    mean = float(re.search(r'<circle cx="([\d.]+)"', svg)[1])
    bars = {float(x) + 15: float(h) for x, h in re.findall(r'<rect x="([\d.]+)" y="[\d.]+" width="30" height="([\d.]+)"', svg)}
    centres = sorted(bars)
    assert mean == pytest.approx(centres[3], abs=0.1)
    low, high = map(float, re.search(r'x1="([\d.]+)" y1="13" x2="([\d.]+)" y2="13" class="roi-spread"', svg).groups())
    assert (low, high) == pytest.approx((centres[2], centres[4]), abs=0.1)
    heights = [bars[x] for x in centres]
    assert heights == pytest.approx([n * heights[1] for n in range(5)], abs=0.3)


def test_a_score_without_levels_has_a_scale_and_no_bars():
    svg = chart(RoiScore("quality", 0.5))
    assert "<rect" not in svg
    assert "roi-spread" not in svg
    assert ">0</text>" in svg
