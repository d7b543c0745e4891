"""Rows of a list -> regions with labels: each form of a region, opinions put together, and mistakes named by their lines."""

from __future__ import annotations

import json

import numpy as np
import PIL.Image
import pytest

from components import rle
from components.registry import ConfigError
from datamodules.records import UNIT, Scale
from datamodules.region_list import RowError, distortions, read_list, regions_of

PIXELS = np.zeros((8, 10, 3), np.uint8)
MASK = np.zeros((8, 10), bool)
MASK[2:6, 3:8] = True
SCALES = {"quality": Scale(1, 5), "importance": UNIT}


def regions(tmp_path, *rows, pixels=PIXELS):
    listed = [{"line": n + 2, "image": "a.png", "id": "r", **row} for n, row in enumerate(rows)]
    found, reaching = regions_of(listed, pixels, tmp_path, SCALES, "a.png")
    assert not reaching
    return found


@pytest.mark.parametrize(
    "form",
    [
        {"box": "3 2 5 4"},
        {"box": "3, 2, 5, 4"},
        {"box": [3, 2, 5, 4]},
        {"polygon": "3 2 8 2 8 6 3 6"},
        {"polygon": [[3, 2, 8, 2, 8, 6, 3, 6]]},
        {"polygon": "3 2 5 2 5 6 3 6; 5 2 8 2 8 6 5 6"},
        {"rle": rle.encode(MASK)["counts"]},
        {"rle": json.dumps(rle.encode(MASK))},
        {"rle": rle.encode(MASK)},
        {"mask": "mask.png"},
    ],
)
def test_every_form_of_a_region(tmp_path, form):
    PIL.Image.fromarray(MASK).save(tmp_path / "mask.png")
    (region,) = regions(tmp_path, form)
    assert region.id == "a.png/r"
    np.testing.assert_array_equal(rle.decode({"size": [8, 10], "counts": region.counts}), MASK)


def test_scores_and_stds_come_from_their_scale(tmp_path):
    (region,) = regions(tmp_path, {"box": "3 2 5 4", "quality": "4", "quality_std": "0.8", "importance": "0.25", "semantic": "cup"})
    assert (region.quality, region.quality_std, region.quality_scale) == (0.75, 0.2, SCALES["quality"])
    assert (region.importance, region.importance_std, region.distortions, region.semantic) == (0.25, None, None, "cup")


def test_opinions_become_a_mean_a_deviation_and_what_most_say(tmp_path):
    """Three opinions about a region, as SEAGULL-3k has them."""
    said = ["severe blur; minor noise", "moderate blur", "extreme blur; minor noise; minor exposure"]
    rows = [{"box": "3 2 5 4", "quality": q, "distortion": d} for q, d in zip(("1", "2", "3"), said, strict=True)]
    (region,) = regions(tmp_path, *rows)
    assert (region.quality, region.quality_std) == (0.25, 0.25)  # mean 2, standard deviation 1, of 1 to 5
    assert region.distortions == (("blur", "severe"), ("noise", "minor"))


def test_one_annotation_for_each_task_is_one_region_without_deviations(tmp_path):
    """As SEAGULL-3k is presumably laid out: three rows a region, of which each fills one column."""
    where = {"rle": rle.encode(MASK)["counts"]}
    rows = ({"quality": "4"}, {"importance": "0.3"}, {"distortion": "severe blur; minor noise"})
    (region,) = regions(tmp_path, *({**where, **row} for row in rows))
    assert (region.quality, region.importance) == (pytest.approx(0.75), pytest.approx(0.3))
    assert (region.quality_std, region.importance_std) == (None, None)
    assert sorted(region.distortions) == [("blur", "severe"), ("noise", "minor")]


def test_two_of_three_say_clean(tmp_path):
    (region,) = regions(tmp_path, *({"box": "3 2 5 4", "distortion": d} for d in ("clean", "minor blur", "clean")))
    assert region.distortions == ()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"box": "30 2 5 4"}], "line 2: box .* lies outside the image"),
        ([{"box": "3 2 5"}], "line 2: a box is left, top, width, height"),
        ([{"box": "a b c d"}], "line 2: could not convert string to float"),
        ([{"mask": "nothing.png"}], "line 2: .*nothing"),
        ([{"box": "3 2 5 4", "quality": "5.5"}], "line 2: quality 5.5 lies outside its scale, 1 to 5: see quality_scale"),
        ([{"box": "3 2 5 4", "quality": "nan"}], "line 2: quality nan lies outside"),
        ([{"box": "3 2 5 4", "quality": "5", "quality_std": "-1"}], "line 2: quality_std is a number of the score's scale, at least 0"),
        ([{"box": "3 2 5 4", "quality": "5"}, {"box": "3 2 5 5", "quality": "4"}], "the rows of region 'r' show different regions"),
        ([{"box": "3 2 5 4", "quality": "5", "quality_std": "1"}] * 2, "region 'r' has several rows and a quality_std"),
        ([{"box": "3 2 5 4", "distortion": "very blurry"}], "distortion 'very blurry': write 'clean', or a severity"),
        ([{"box": "9 9 9 9", "id": "x"}, {"box": "3 2 5", "id": "y"}], "line 2: .*; line 3: "),
        ([{"box": "3 2 5", "quality": "9", "distortion": "bad"}], "line 2: a box is .*; line 2: quality 9 .*; line 2: distortion 'bad'"),
    ],
)
def test_mistakes_are_named_by_their_lines(tmp_path, rows, message):
    with pytest.raises(RowError, match=message):
        regions(tmp_path, *rows)


@pytest.mark.parametrize(
    ("form", "reaching"),
    [
        ({"box": "3 2 7 6"}, 0),
        ({"box": "-0.5 0 10.9 8"}, 0),  # rounding
        ({"box": "3 2 8 6"}, 1),
        ({"box": "-1 2 8 6"}, 1),
        ({"polygon": "3 2 8 2 8 9 3 6"}, 1),
        ({"polygon": "3 2 5 2 5 6; 0 0 10 0 10 8"}, 0),
    ],
)
def test_what_reaches_out_of_the_image_is_counted_and_cut(tmp_path, form, reaching):
    (region,), found = regions_of([{"line": 2, "image": "a.png", "id": "r", **form}], PIXELS, tmp_path, SCALES, "a.png")
    assert found == reaching
    assert rle.area({"size": [8, 10], "counts": region.counts})


def test_of_many_mistakes_the_first_are_named_and_the_rest_counted(tmp_path):
    (tmp_path / "a.csv").write_text("image,id,box\n" + "a.png,1,\n" * 23)
    with pytest.raises(ConfigError, match=r"23 rows cannot be used: line 2: .*line 21: .*; and 3 more$") as raised:
        read_list(tmp_path / "a.csv")
    assert "line 22" not in str(raised.value)


def test_distortions_in_words():
    assert distortions("severe blur;minor noise") == (("blur", "severe"), ("noise", "minor"))
    assert distortions(["severe blur", ["minor", "noise"]]) == (("blur", "severe"), ("noise", "minor"))
    assert distortions("clean") == distortions([]) == ()


def test_csv_and_jsonl_say_the_same(tmp_path):
    (tmp_path / "a.csv").write_text("image,id,box,quality,split\na.png,1,1 2 3 4,2,\n")
    (tmp_path / "a.jsonl").write_text('{"image": "a.png", "id": "1", "box": "1 2 3 4", "quality": "2", "split": null}\n\n')
    (from_csv,), (from_jsonl,) = read_list(tmp_path / "a.csv"), read_list(tmp_path / "a.jsonl")
    assert from_csv == {"image": "a.png", "id": "1", "box": "1 2 3 4", "quality": "2", "line": 2}
    assert from_jsonl == {**from_csv, "line": 1}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "image,id,box,mos\n", None),
        ("a.csv", "image,id,box,mos\na,1,0 0 1 1,3\n", "unknown key 'mos'"),
        ("a.csv", "image,id,box,quality\na,1,,3\n", "line 2: a row has an image, an id, and one of box, polygon, rle, mask"),
        ("a.csv", "image,id,box,mask\na,1,0 0 1 1,m.png\n", "line 2: a row has an image, an id, and one of"),
        ("a.csv", 'image,id\n"a', "cannot be read as csv"),
        ("a.jsonl", "{", "cannot be read as jsonl"),
        ("a.jsonl", "[1]", "cannot be read as jsonl: each line is a mapping"),
        ("b.csv", None, r"the list of regions .*b\.csv is missing"),
    ],
)
def test_a_list_that_cannot_be_read(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    if message is None:
        assert read_list(tmp_path / name) == []
        return
    with pytest.raises(ConfigError, match=message):
        read_list(tmp_path / name)
