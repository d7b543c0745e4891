"""Overlays: the region's outline has its score's colour, nothing else of the picture changes, and any size can be drawn."""

import tracemalloc

import numpy as np
import pytest
from PIL import Image

from components import rle
from components.tasks import RoiScore
from inference.draw import _LISTED, SUFFIXES, _ramp, _shared, draw, mark, save
from inference.rows import Row

TASKS = ("quality", "importance", "distortion")


def row(value, std=0.1, **scores):
    found = {"quality": RoiScore("quality", value, std, "The quality is good."), **scores}
    return Row("a.png", "box", "box", (0, 0, 1, 1), 0.1, found)


def boxes(height, width, *corners):
    masks = np.zeros((len(corners), height, width), bool)
    for mask, (top, left, bottom, right) in zip(masks, corners, strict=True):
        mask[top:bottom, left:right] = True
    return masks


def test_the_ramp_goes_from_red_to_blue():
    red, blue = _ramp(0.0), _ramp(1.0)
    assert red[0] > 2 * red[2]
    assert blue[2] > 2 * blue[0]
    assert len({_ramp(v / 20) for v in range(21)}) == 21


def test_an_outline_has_the_colour_of_its_score_and_the_rest_is_the_image():
    image = np.full((800, 1000, 3), 77, np.uint8)
    picture = draw(image, boxes(800, 1000, (100, 200, 500, 700)), [row(0.9)], TASKS)
    assert picture.shape[1] == 1000
    assert picture.shape[0] > 800
    assert tuple(picture[101, 450]) == _ramp(0.9)
    assert tuple(picture[300, 201]) == _ramp(0.9)
    assert (picture[:800, 800:] == 77).all()
    assert (picture[130:200, 230:400] == 77).all()


def test_the_first_score_asked_for_gives_the_colour():
    image = np.full((800, 800, 3), 77, np.uint8)
    scored = row(0.9, importance=RoiScore("importance", 0.1, 0.1))
    picture = draw(image, boxes(800, 800, (100, 100, 500, 500)), [scored], ("importance", "quality"))
    assert tuple(picture[101, 300]) == _ramp(0.1)


@pytest.mark.parametrize("size", [(1, 1), (3, 400), (400, 3), (40, 30), (720, 720), (3000, 2000)])
def test_any_size_is_drawn(size):
    picture = draw(np.zeros((*size, 3), np.uint8), np.ones((1, *size), bool), [row(0.5)], TASKS)
    assert 640 <= picture.shape[1] <= 1600
    assert picture.dtype == np.uint8


def test_a_region_that_would_vanish_is_still_there():
    image, masks = np.full((4000, 6000, 3), 77, np.uint8), boxes(4000, 6000, (1000, 1001, 1001, 1002))
    picture = draw(image, masks, [row(0.0)], TASKS)
    assert (picture[:1066] != 77).any()


@pytest.mark.parametrize("size", [(60, 90), (1900, 2500)])
def test_codes_are_drawn_as_their_masks(size):
    image = np.full((*size, 3), 77, np.uint8)
    masks = boxes(*size, (5, 10, 40, 60), (20, 5, 55, 30), (1, 1, 2, 2), (0, 0, *size))
    rows = [row(0.1 * n) for n in range(len(masks))]
    assert np.array_equal(draw(image, [rle.encode(mask) for mask in masks], rows, TASKS), draw(image, masks, rows, TASKS))


def test_codes_take_no_memory_for_each_mask():
    image, mask = np.full((3000, 4000, 3), 77, np.uint8), np.zeros((3000, 4000), bool)
    mask[700:800, 500:700] = True
    code = rle.encode(mask)
    peaks = []
    for count in (2, 20):
        tracemalloc.start()
        mark(image, [code] * count, [row(0.5)] * count, TASKS)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + mask.size  # eighteen more take less than one mask of the image


def test_what_has_no_score_is_drawn_in_grey():
    image = np.full((800, 800, 3), 77, np.uint8)
    failed = row(None, quality=RoiScore("quality", None, text="?", parsed=False))
    picture = draw(image, boxes(800, 800, (100, 100, 500, 500)), [failed], TASKS)
    assert tuple(picture[101, 300]) == (120, 120, 128)
    draw(image, boxes(800, 800, (100, 100, 500, 500)), [Row("a", "b", "box")], ("distortion",))


def test_a_long_legend_lists_the_worst():
    count = _LISTED + 9
    masks = boxes(800, 800, *((20 * i, 20, 20 * i + 15, 200) for i in range(count)))
    long = draw(np.zeros((800, 800, 3), np.uint8), masks, [row(i / count) for i in range(count)], TASKS)
    short = draw(np.zeros((800, 800, 3), np.uint8), masks[:_LISTED], [row(i / count) for i in range(_LISTED)], TASKS)
    assert 0 < len(long) - len(short) < 40  # one line more: "and 9 more"


@pytest.mark.parametrize(
    ("needed", "room", "widths"),
    [([1, 2, 3], 12, [3, 4, 5]), ([1, 5, 9], 9, [1, 4, 4]), ([10, 10], 4, [2, 2]), ([2, 3], 5, [2, 3]), ([7], 3, [3])],
)
def test_columns_take_what_they_need(needed, room, widths):
    assert _shared(needed, room) == pytest.approx(widths)


def test_regions_and_rows_must_be_as_many():
    with pytest.raises(ValueError, match="1 regions and 2 rows"):
        draw(np.zeros((8, 8, 3), np.uint8), np.ones((1, 8, 8), bool), [row(0.5)] * 2, TASKS)


@pytest.mark.parametrize("name", ["deep/er/a.webp", *(f"a{suffix}" for suffix in SUFFIXES)])
def test_pictures_are_written_whole(tmp_path, name):
    picture = np.zeros((8, 8, 3), np.uint8)
    save(picture, tmp_path / name)
    assert np.asarray(Image.open(tmp_path / name)).shape == (8, 8, 3)
    assert [p.name for p in (tmp_path / name).parent.iterdir() if p.is_file()] == [name.rpartition("/")[2]]
