"""Maps: the colour of a score where its region is, grey where nothing is known, numbers of the worst as in the table."""

import base64
import io
import re

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from components import rle
from components.tasks import RoiScore
from inference.page.shade import legend, panels, shade
from inference.quality_map import QualityMap
from tests.inference.page.models import photo


def test_colours_stand_where_their_scores_do():
    light = np.full((40, 60), 128 / 255, np.float32)
    values = np.full((40, 60), np.nan, np.float32)
    values[:, :20], values[:, 20:40] = 0.0, 1.0
    out = shade(light, values, "viridis").astype(int)
    for column, value in ((10, 0.0), (30, 1.0)):
        hue = np.array(colormaps["viridis"](value)[:3])
        assert np.abs(out[20, column] - 255 * (0.66 * hue + 0.34 * 128 / 255)).max() <= 1.5
    assert len(set(out[20, 50])) == 1  # grey


def test_a_large_map_is_made_at_the_size_in_which_it_is_shown(monkeypatch):
    """Of a photograph of 24 megapixels each score's map would take seconds."""
    image, scores = photo(2000, 3000), ({"quality": RoiScore("quality", 0.2), "importance": RoiScore("importance", 0.7)},) * 2
    codes = tuple(rle.encode_rectangle((2000, 3000), 1500 * n, 0, 1500 * (n + 1), 2000) for n in range(2))
    found = QualityMap(image, codes, scores)
    monkeypatch.setattr(rle, "decode", lambda code: pytest.fail("a mask of the image's size"))
    html = panels([found], ["m"])
    shown = [Image.open(io.BytesIO(base64.b64decode(part))).size for part in re.findall(r"base64,([^\"]*)", html)]
    assert shown == [(1000, 667)] * 2


def test_a_legend_goes_from_the_worst_word_to_the_best():
    assert re.sub(r"<[^>]*>", " ", legend("quality")).split() == ["0", "bad", "excellent", "1"]


def test_a_panel_for_each_score_that_is_known():
    mask = np.zeros((90, 2400), bool)
    mask[0, 0] = True  # vanishes in the reduced picture, but is drawn
    codes = (rle.encode(~mask), rle.encode(mask))
    scores = tuple({"quality": RoiScore("quality", v)} for v in (0.9, 0.2))
    html = panels([QualityMap(photo(90, 2400), codes, scores)], ["m"])
    assert html.count("<figure") == 1
    assert 'data-map="quality"' in html
    assert "0.20 to 0.90" in html
    assert "data:image/jpeg;base64," in html
