"""Answers as HTML: all of them, the newest first, and nothing of a visitor's as markup."""

from dataclasses import replace

import numpy as np

from components import rle
from components.tasks import TASKS, RoiScore
from inference.page.answers import cards, ranking
from inference.page.visit import Marked, Visit
from inference.quality_map import QualityMap
from inference.reduced import FACTOR
from inference.rows import Row
from tests.inference.page.models import photo

SCORES = {
    "quality": RoiScore("quality", 0.25, 0.1),
    "importance": RoiScore("importance", None, text="<b>what?</b>", parsed=False),
    "distortion": RoiScore("distortion", distortions=(("blur", "severe"), ("noise", "minor"))),
}


def visit_of(*names, scores=SCORES, models=1, reduced=1.0):
    code = rle.encode(np.ones((90, 120), bool))
    regions = [Marked(code, (Row("p", name, "box", (0, 0, 120, 90), 1.0, scores),) * models, (reduced,) * models) for name in names]
    return Visit("p", photo(), regions)


def test_without_regions_it_says_what_to_do():
    assert "Choose one in the picture" in cards(visit_of(), ["m"], TASKS)


def test_all_answers_the_newest_first():
    html = cards(visit_of("first", "second"), ["m"], TASKS)
    assert html.index("<b>second") < html.index("<b>first")
    assert html.count("0.25") >= 2
    assert "severe blur" in html
    assert html.count("roi-on") == 2 * (4 + 2)  # steps: severe is the fourth, minor the second
    assert "roi-model" not in html  # one model needs no name


def test_two_models_are_named():
    html = cards(visit_of("r", models=2), ["one", "<two>"], TASKS)
    assert html.count('class="roi-model"') == 2
    assert "&lt;two&gt;" in html


def test_of_what_is_reduced_until_noise_vanishes_that_is_said():
    html = cards(visit_of("r", models=2, reduced=5.26), ["one", "two"], TASKS)
    assert html.count("Reduced 5.3 times before the model looked: noise, compression and slight blur vanish.") == 2
    assert "Reduced" not in cards(visit_of("r", reduced=FACTOR), ["m"], TASKS)


def test_what_others_wrote_is_escaped():
    html = cards(visit_of("mask <img src=x onerror=alert(1)>.png"), ["m"], TASKS)
    assert "<img" not in html
    assert "<b>what?" not in html
    assert "&lt;b&gt;what?" in html


def test_clean_and_not_understood_are_told_apart():
    clean = cards(visit_of("r", scores={"distortion": RoiScore("distortion")}), ["m"], TASKS)
    unclear = cards(visit_of("r", scores={"distortion": RoiScore("distortion", text="hm", parsed=False)}), ["m"], TASKS)
    assert ">none<" in clean
    assert "not understood" in unclear
    assert ">none<" not in unclear


def test_the_ranking_begins_with_the_worst():
    codes = tuple(rle.encode(np.eye(4, dtype=bool)) for _ in range(3))
    scores = [{"quality": RoiScore("quality", q), "importance": RoiScore("importance", i)} for q, i in ((0.9, 0.1), (0.1, 0.9), (0.5, 0.4))]
    found = QualityMap(photo(4, 4), codes, tuple(scores))
    html = ranking([found], ["m"], [""])
    assert html.index("</span>0.10") < html.index("</span>0.50") < html.index("</span>0.90", html.index("</span>0.50"))
    assert "3 regions were scored" in html
    assert "roi-note" not in html
    assert '<p class="roi-note">2 regions &amp; more.</p>' in ranking([found], ["m"], ["2 regions & more"])
    unclear = replace(found, scores=({"quality": RoiScore("quality", None, parsed=False), "importance": RoiScore("importance", 0.5)},) * 3)
    assert "not understood" in ranking([unclear], ["m"], [""])
