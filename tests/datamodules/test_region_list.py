"""Rows of a list -> regions with labels: each form of a region, opinions put together, and mistakes named by their lines."""

from __future__ import annotations

import csv
import json
import re

import numpy as np
import PIL.Image
import pytest

from components import rle
from components.registry import ConfigError
from datamodules.archives import ImageFiles
from datamodules.records import UNIT, Scale
from datamodules.region_list import Mistake, distortions, named, read_list, regions_of

PIXELS = np.zeros((8, 10, 3), np.uint8)
MASK = np.zeros((8, 10), bool)
MASK[2:6, 3:8] = True
SCALES = {"quality": Scale(1, 5), "importance": UNIT}


def read(tmp_path, *rows):
    listed = [{"line": n + 2, "image": "a.png", "id": "r", **row} for n, row in enumerate(rows)]
    return regions_of(listed, PIXELS, ImageFiles(tmp_path), SCALES, "a.png")


def regions(tmp_path, *rows):
    found, mistakes = read(tmp_path, *rows)
    assert not mistakes
    return [region for _, region in found]


@pytest.mark.parametrize(
    "form",
    [
        {"box": "3 2 5 4"},
        {"box": "3,2,5,4"},
        {"box": "[3, 2, 5, 4]"},
        {"box": [3, 2, 5, 4]},
        {"polygon": "3 2 8 2 8 6 3 6"},
        {"polygon": [[3, 2, 8, 2, 8, 6, 3, 6]]},
        {"polygon": "3,2 8,2 8,6 3,6"},
        {"polygon": "[[3, 2, 8, 2, 8, 6, 3, 6]]"},
        {"polygon": "[3, 2, 8, 2, 8, 6, 3, 6]"},
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


def test_a_row_for_each_task_may_have_its_own_deviation(tmp_path):
    where = {"rle": rle.encode(MASK)["counts"]}
    rows = ({"quality": "4", "quality_std": "0.8"}, {"importance": "0.3", "importance_std": "0.1"}, {"distortion": "clean"})
    (region,) = regions(tmp_path, *({**where, **row} for row in rows))
    assert (region.quality_std, region.importance_std, region.distortions) == (pytest.approx(0.2), pytest.approx(0.1), ())


def test_two_of_three_say_clean(tmp_path):
    (region,) = regions(tmp_path, *({"box": "3 2 5 4", "distortion": d} for d in ("clean", "minor blur", "clean")))
    assert region.distortions == ()


def test_opinions_write_their_region_as_they_like(tmp_path):
    (region,) = regions(tmp_path, {"box": "3 2 5 4", "quality": "4"}, {"box": "3,2,5,4", "quality": "2"})
    assert region.quality == 0.5


BOX = {"box": "3 2 5 4"}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{"box": "30 2 5 4"}], [("region", 2, "box .* lies outside the image")]),
        ([{"box": "3 2 5"}], [("region", 2, "a box is left, top, width, height")]),
        (
            [{"box": "a b c d"}],
            [
                (
                    "region",
                    2,
                    "numbers stand with blanks or commas between them, as in 40 30 120 90, a fraction behind a point; got 'a b c d'",
                )
            ],
        ),
        ([{"box": "3;2;5;4"}], [("region", 2, "numbers stand with blanks or commas between them, as in 40 30 120 90")]),
        (
            [{"box": "3,5 2,5 5 4"}],
            [("region", 2, "a box is left, top, width, height, four numbers of pixels, as in 40 30 120 90; got 3,5 2")],
        ),
        ([{"box": "4 3 8 7"}], [("region", 2, "box 4 3 8 7 reaches out .* and lies in it as left, top, right, bottom")]),
        ([{"box": "4,3,8,7"}], [("region", 2, ".*If these are corners, write 4 3 4 4; if not, cut it to the image: 4 3 6 5")]),
        ([{"box": 7}], [("region", 2, ".*not iterable")]),
        ([{"mask": "nothing.png"}], [("mask", 2, ".*nothing")]),
        ([{"mask": "../mask.png"}], [("mask", 2, r"mask '\.\./mask\.png' leads out of the folder: write it relative to")]),
        ([{"rle": rle.encode(np.ones((3, 3)))}], [("mask", 2, "RLE is 3 x 3 pixels, the image is 10 x 8")]),
        ([{**BOX, "quality": "5.5"}], [("label out of scale", 2, "quality 5.5 lies outside its scale, 1 to 5: see quality_scale")]),
        ([{**BOX, "quality": "nan"}], [("label out of scale", 2, "quality nan lies outside")]),
        ([{**BOX, "quality": "good"}], [("number", 2, "quality is a number, got 'good'")]),
        ([{**BOX, "quality": "3"}, {**BOX, "quality": "9"}], [("label out of scale", 3, "quality 9 lies outside")]),
        (
            [{**BOX, "quality": "5", "quality_std": "-1"}],
            [("std not of the scale", 2, "quality_std is a number of the score's scale, at least")],
        ),
        ([{**BOX, "quality": "5"}, {"box": "3 2 5 5", "quality": "4"}], [("opinions", 3, "the rows of region 'r' show different regions")]),
        (
            [{**BOX, "quality": "4", "quality_std": "1"}] * 2,
            [("opinions", 2, "region 'r' has several opinions on its quality, and a quality_std")],
        ),
        ([{**BOX, "distortion": "very blurry"}], [("distortion", 2, "distortion 'very blurry': write 'clean', or a severity")]),
        ([{**BOX, "distortion": "minor blur; severe blur"}], [("distortion", 2, "distortion .* names blur twice")]),
        ([{**BOX, "distortion": "clean"}, {**BOX, "distortion": "bad"}], [("distortion", 3, "distortion 'bad'")]),
        ([{"box": "9 9 9 9", "id": "x"}, {"box": "3 2 5", "id": "y"}], [("region", 2, "box"), ("region", 3, "a box is")]),
        (
            [{"box": "3 2 5", "quality": "9", "distortion": "bad"}],
            [("region", 2, "a box is"), ("label out of scale", 2, "quality 9"), ("distortion", 2, "distortion 'bad'")],
        ),
    ],
)
def test_all_mistakes_are_named_by_their_lines(tmp_path, rows, expected):
    _, mistakes = read(tmp_path, *rows)
    assert [(m.kind, m.line, m.image, m.stops) for m in mistakes] == [(kind, line, "a.png", True) for kind, line, _ in expected]
    for mistake, (_, line, said) in zip(mistakes, expected, strict=True):
        assert re.match(f"line {line}: {said}", str(mistake))


@pytest.mark.parametrize(
    ("row", "kind", "said"),
    [
        (
            {"quality": "4.5", "quality_std": "3"},
            "std not of the scale",
            "quality 4.5 with a standard deviation of 3 on 1 to 5; at most 1.95",
        ),
        ({"quality_std": "0.4"}, "std without score", "quality_std 0.4 without a quality"),
    ],
)
def test_a_deviation_that_cannot_be_is_told_and_stops_nothing(tmp_path, row, kind, said):
    """It is written as it was given, and taken for unknown when it is read."""
    ((line, region),), (mistake,) = read(tmp_path, {**BOX, **row})
    assert (line, mistake) == (2, Mistake(kind, 2, "a.png", said, stops=False))
    assert region.quality_std == pytest.approx(float(row["quality_std"]) / 4)


def test_what_is_whole_is_read_beside_what_is_not(tmp_path):
    found, mistakes = read(
        tmp_path, {**BOX, "id": "a"}, {"box": "3 2", "id": "b"}, {"box": "3 2 5 3", "id": "c", "quality": "9", "importance": "0.5"}
    )
    assert [(line, region.id, region.quality, region.importance) for line, region in found] == [
        (2, "a.png/a", None, None),
        (4, "a.png/c", None, 0.5),
    ]
    assert [m.line for m in mistakes] == [3, 4]


@pytest.mark.parametrize(
    ("form", "reaching"),
    [
        ({"box": "3 2 7 6"}, 0),
        ({"box": "-0.5 0 10.9 8"}, 0),  # rounding
        ({"box": "3 2 8 1"}, 1),
        ({"box": "-1 2 8 6"}, 1),
        ({"box": "3 2 12 9"}, 1),
        ({"polygon": "3 2 8 2 8 9 3 6"}, 1),
        ({"polygon": "3 2 5 2 5 6; 0 0 10 0 10 8"}, 0),
    ],
)
def test_what_reaches_out_of_the_image_is_told_and_cut(tmp_path, form, reaching):
    ((_, region),), mistakes = read(tmp_path, form)
    assert [(m.kind, m.line, m.stops) for m in mistakes] == [("region cut", 2, False)] * reaching
    assert all("reaches out of the image of 10 x 8 pixels" in str(m) for m in mistakes)
    assert rle.area({"size": [8, 10], "counts": region.counts})


def test_of_many_mistakes_the_first_are_named_and_the_rest_counted():
    text = named([Mistake("row", n, "a.png", "odd") for n in range(2, 25)])
    assert text.startswith("line 2: odd; line 3: odd;")
    assert text.endswith("line 21: odd; and 3 more")


def test_distortions_in_words():
    assert distortions("severe blur;minor noise") == (("blur", "severe"), ("noise", "minor"))
    assert distortions(["severe blur", ["minor", "noise"]]) == (("blur", "severe"), ("noise", "minor"))
    assert distortions("clean") == distortions([]) == ()


def test_csv_and_jsonl_say_the_same(tmp_path):
    (tmp_path / "a.csv").write_text("image,id,box,quality,split\na.png,1,1 2 3 4,2, \n")
    (tmp_path / "a.jsonl").write_text('{"image": "a.png", "id": "1", "box": "1 2 3 4", "quality": "2", "split": null}\n\n')
    from_csv, from_jsonl = read_list(tmp_path / "a.csv"), read_list(tmp_path / "a.jsonl")
    assert from_csv.rows == ({"image": "a.png", "id": "1", "box": "1 2 3 4", "quality": "2", "line": 2},)
    assert from_jsonl.rows == ({**from_csv.rows[0], "line": 1},)
    assert (from_csv.images, from_jsonl.images, from_csv.mistakes, from_jsonl.mistakes) == ({2: "a.png"}, {1: "a.png"}, (), ())


def test_lines_are_counted_as_an_editor_counts_them(tmp_path):
    """Empty lines, a cell of several lines, another end of lines, and the mark that Excel begins with."""
    text = '\ufeffimage,id,box,description\r\n\r\na.png,1,1 2 3 4,"a cup,\r\non a table"\r\n\r\n\r\na.png,2,1 2 3 4,\r\na.png,3,,\r\n'
    (tmp_path / "a.csv").write_bytes(text.encode())
    listed = read_list(tmp_path / "a.csv")
    lines = text.split("\r\n")
    assert [(row["id"], row["line"]) for row in listed.rows] == [("1", 3), ("2", 7)]
    assert lines[2].startswith("a.png,1")
    assert lines[6].startswith("a.png,2")
    assert listed.rows[0]["description"] == "a cup,\r\non a table"
    assert [(m.kind, m.line) for m in listed.mistakes] == [("row", 8)]
    assert listed.images == {3: "a.png", 7: "a.png", 8: "a.png"}


def test_a_line_of_jsonl_ends_where_it_ends(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        '{"image": "a.png", "id": 1, "box": [1, 2, 3, 4], "description": "a\u2028b"}\n\n{"image": "a.png", "id": 2}\n'
    )
    listed = read_list(tmp_path / "a.jsonl")
    assert (listed.rows[0]["description"], listed.rows[0]["line"]) == ("a\u2028b", 1)
    assert [(m.kind, m.line) for m in listed.mistakes] == [("row", 3)]


def test_a_cell_may_be_longer_than_the_readers_limit(tmp_path):
    before = csv.field_size_limit()
    (tmp_path / "a.csv").write_text(f"image,id,rle\na.png,1,{'0' * (before + 1)}\n")
    assert len(read_list(tmp_path / "a.csv").rows[0]["rle"]) == before + 1
    assert csv.field_size_limit() == before


ROW = "a row has an image, an id, and one of box, polygon, rle, mask"


@pytest.mark.parametrize(
    ("name", "text", "mistakes"),
    [
        ("a.csv", "image,id,box,mos\na,1,0 0 1 1,3\na,2,0 0 1 1,3\n", ["line 1: unknown column 'mos'"]),
        ("a.csv", "image,id,box,quality\na,1,,3\n,1,0 0 1 1,\na,,0 0 1 1,\n", [f"line {n}: {ROW}" for n in (2, 3, 4)]),
        ("a.csv", "image,id,box,mask\na,1,0 0 1 1,m.png\n", [f"line 2: {ROW}"]),
        (
            "a.csv",
            "image,id,box\na,1,0,0,1,1\na,1\n",
            ["line 2: 6 cells under a header of 3: a cell that holds a comma", "line 3: 2 cells"],
        ),
        (
            "a.jsonl",
            '{\n[1]\n{"image": "a", "id": 1, "box": "0 0 1 1", "mos": 3}',
            ["line 1: no JSON", "line 2: each line is a mapping", "line 3: unk"],
        ),
    ],
)
def test_mistakes_of_the_list_itself(tmp_path, name, text, mistakes):
    (tmp_path / name).write_text(text)
    found = read_list(tmp_path / name).mistakes
    assert len(found) == len(mistakes)
    for mistake, said in zip(found, mistakes, strict=True):
        assert re.match(said, str(mistake))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.csv", b'image,id\n\n"a', "cannot be read as csv: line 3: unexpected end of data"),
        ("a.csv", b"image,id,image\n", "cannot be read as csv: line 1: the header has 'image' twice"),
        ("a.csv", b"image\tid\tbox\n0.png\t1\t1 1 3 3\n", r"line 1: its cells are parted by '\\t': write commas"),
        ("a.csv", b"\n\nimage|id|box\n", r"line 3: its cells are parted by '\|': write commas"),
        ("a.csv", b"image,id,box,mos\n", "it lists nothing: below a header with the columns image, id"),
        ("a.jsonl", b"\n", "it lists nothing"),
        ("a.csv", "image,id\nM\u00fcnchen.png,1\n".encode("latin-1"), r"line 2: no UTF-8 behind 'M' \(byte 0xfc\): save it as UTF-8"),
        ("a.csv", "image,id\n1.png,1\n".encode("utf-16"), r"a\.csv is UTF-16: save it as UTF-8 \(in a spreadsheet, CSV UTF-8\)"),
        ("b.csv", None, r"the list of regions .*b\.csv is missing"),
    ],
)
def test_a_list_that_cannot_be_read(tmp_path, name, data, message):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ConfigError, match=message):
        read_list(tmp_path / name)
