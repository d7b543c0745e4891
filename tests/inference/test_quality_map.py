"""A map: each pixel has the score of its smallest region, the worst regions come first, and the picture can be drawn."""

import numpy as np
import pytest

from components import rle
from components.registry import ConfigError
from components.tasks import RoiScore
from inference.quality_map import QualityMap, check_mapped, draw_map


def region(quality, importance=None, parsed=True):
    scores = {"quality": RoiScore("quality", quality, 0.1, parsed=parsed)}
    if importance is not None:
        scores["importance"] = RoiScore("importance", importance, None)
    return {**scores, "distortion": RoiScore("distortion", distortions=(("blur", "minor"),))}


def boxes(*edges, size=(40, 60)):
    codes = []
    for top, bottom, left, right in edges:
        mask = np.zeros(size, bool)
        mask[top:bottom, left:right] = True
        codes.append(rle.encode(mask))
    return tuple(codes)


@pytest.fixture
def found():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    codes = boxes((0, 5, 0, 5), (0, 20, 0, 30), (20, 40, 30, 60), (30, 40, 0, 10))
    return QualityMap(image, codes, (region(0.2, 0.9), region(0.8, 1.0), region(0.1, 0.1), region(None, 0.5, parsed=False)))


def test_the_smallest_region_speaks(found):
    quality = found.map("quality")
    assert (quality[:5, :5] == np.float32(0.2)).all()
    assert (quality[5:20, :30] == np.float32(0.8)).all()
    assert (quality[20:, 30:] == np.float32(0.1)).all()
    assert np.isnan(quality[20:, :30]).all()  # in no region, or in one whose answer did not parse
    assert (found.map("importance")[30:, :10] == np.float32(0.5)).all()


@pytest.mark.parametrize("size", [(40, 60), (13, 17), (1, 1)])
def test_a_small_map_is_the_large_one_reduced(found, size):
    whole, (height, width) = found.map("quality"), size
    wanted = whole[np.arange(height) * 40 // height][:, np.arange(width) * 60 // width]
    assert np.array_equal(found.map("quality", size), wanted, equal_nan=True)


def test_the_worst_spoil_the_image_most(found):
    # (1 - quality) x importance: 0.72, 0.2, 0.09, and 0.63 (the others' mean) x 0.5 where only the importance is known
    assert found.worst() == [0, 3, 1, 2]


def test_an_answer_that_is_not_understood_makes_no_region_the_worst():
    image, codes = np.zeros((40, 60, 3), np.uint8), boxes((0, 5, 0, 5), (0, 20, 0, 30), (20, 40, 30, 60))
    assert QualityMap(image, codes, (region(0.9, 0.9), region(None, 1.0, parsed=False), region(0.7, 0.9))).worst() == [2, 1, 0]
    assert QualityMap(image, codes, (region(0.9), region(0.2), region(0.7))).worst() == [1, 2, 0]


def test_nothing_known_is_not_ranked():
    unknown = QualityMap(np.zeros((40, 60, 3), np.uint8), boxes((0, 5, 0, 5)), ({},))
    assert unknown.worst() == []
    assert np.isnan(unknown.map("quality")).all()


def test_only_scores_make_maps():
    check_mapped(["importance", "distortion"])
    with pytest.raises(ConfigError, match="only distortion is asked for"):
        check_mapped(["distortion"])


@pytest.mark.parametrize("size", [(40, 60), (60, 40), (30, 300)])
def test_it_is_drawn_for_any_shape(size):
    image = np.full((*size, 3), 90, np.uint8)
    found = QualityMap(image, boxes((0, 20, 0, 20), (20, 30, 20, 30), size=size), (region(0.2, 0.9), region(0.9)))
    picture = draw_map(found)
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    assert 0.02 < (picture < 250).any(2).mean() < 0.98


def test_one_score_alone_makes_two_panels():
    image, codes = np.full((40, 60, 3), 90, np.uint8), boxes((0, 20, 0, 20))
    both = draw_map(QualityMap(image, codes, (region(0.2, 0.9),)))
    one = draw_map(QualityMap(image, codes, ({"quality": RoiScore("quality", 0.2)},)))
    assert one.shape[1] < 0.8 * both.shape[1]
