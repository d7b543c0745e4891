"""What is asked for, from each of its forms."""

import csv
import json

import numpy as np
import PIL.Image
import pytest

from components.mask_encoders.base import Prompt
from components.registry import ConfigError
from components.rle import RegionError
from inference.output import Output
from inference.requests import Asked, Request, gather
from inference.rows import Row


@pytest.fixture
def folder(tmp_path):
    for name in ("b.png", "a.jpg", "deep/c.PNG", ".hidden.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        PIL.Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / name)
    return tmp_path


def test_a_folder_is_asked_the_same_of_every_image(folder):
    asked = [Asked("box 1,2,3,4", "box", [1, 2, 3, 4])]
    found = gather(folder, asked)
    assert [r.name for r in found] == ["a.jpg", "b.png", "deep/c.PNG"]
    assert all(r.regions == tuple(asked) for r in found)


def test_without_a_region_it_is_the_whole_image(folder):
    assert gather(folder / "b.png", []) == [Request("b.png", folder / "b.png", (Asked("whole image", "whole"),))]


def test_the_reference_json_keeps_its_order_and_groups_images(tmp_path):
    records = [
        {"img": "x.png", "points": [1, 2, 3, 4]},
        {"img": "y.png", "points": [5, 6, 7, 8]},
        {"img": "x.png", "points": [9, 9, 9, 9], "rle": "k"},
    ]
    (tmp_path / "r.json").write_text(json.dumps(records))
    found = gather(tmp_path / "r.json", [], tmp_path / "images")
    assert [(r.name, r.path) for r in found] == [(n, tmp_path / "images" / n) for n in ("x.png", "y.png")]
    assert [a.id for a in found[0].regions] == ["0", "2"]
    assert found[0].regions[1] == Asked("2", "box", [9, 9, 9, 9])


def test_a_csv_of_a_spreadsheet(tmp_path):
    """With a byte-order mark, quotes, and fields left empty."""
    (tmp_path / "m.csv").write_bytes('\ufeffimage,id,box,mask\nx.png,one,"1,2,3,4",\ny.png,,,m.png\nz.png,,,\n'.encode())
    found = gather(tmp_path / "m.csv", [])
    assert [r.regions[0] for r in found] == [
        Asked("one", "box", [1.0, 2.0, 3.0, 4.0]),
        Asked("1", "mask", str(tmp_path / "m.png")),
        Asked("2", "whole"),
    ]


@pytest.mark.parametrize(
    ("kind", "cell", "value"),
    [
        ("box", "1 2 3 4", [1, 2, 3, 4]),
        ("box", '"1,2,3,4"', [1, 2, 3, 4]),
        ("box", '"[1, 2, 3, 4]"', [1, 2, 3, 4]),
        ("box", "1 two 3 4", "1 two 3 4"),  # refused once the image is there
        ("point", "1.5 -2", [1.5, -2]),
        ("polygon", "0 0 4 0 4 4; 5 5 9 5 9 9", [[0, 0, 4, 0, 4, 4], [5, 5, 9, 5, 9, 9]]),
        ("rle", "[ab0", "[ab0"),
        ("rle", '"[3, 4]"', [3, 4]),
    ],
)
def test_a_cell_is_written_as_in_a_list_for_training(tmp_path, kind, cell, value):
    (tmp_path / "m.csv").write_text(f"image,{kind}\nx.png,{cell}\n")
    assert gather(tmp_path / "m.csv", [])[0].regions == (Asked("0", kind, value),)


@pytest.mark.parametrize(
    ("asked", "prompt"),
    [
        (Asked("", "box", [1, 2, 3, 4]), Prompt(box=(1, 2, 3, 4))),
        (Asked("", "point", [1.5, 2]), Prompt(point=(1.5, 2))),
        (Asked("", "whole"), Prompt(box=(0, 0, 20, 10))),
        (Asked("", "rle", "abc"), Prompt(rle={"size": [10, 20], "counts": "abc"})),
        (Asked("", "rle", {"size": [1, 1], "counts": [1]}), Prompt(rle={"size": [1, 1], "counts": [1]})),
        (Asked("", "polygon", [0, 0, 1, 0, 1, 1]), Prompt(polygon=[[0, 0, 1, 0, 1, 1]])),
        (Asked("", "polygon", [[0, 0, 1, 0, 1, 1]]), Prompt(polygon=[[0, 0, 1, 0, 1, 1]])),
    ],
)
def test_what_a_region_means(asked, prompt):
    assert asked.prompt(10, 20) == prompt


@pytest.mark.parametrize("value", ["1,2", [1, 2, 3], None, [1, 2, 3, "4"], [True, 1, 2, 3]])
def test_what_is_no_box(value):
    with pytest.raises(RegionError, match="a box is left, top, width, height, 4 numbers of pixels, got"):
        Asked("", "box", value).prompt(10, 20)


def listed(tmp_path, *rows):
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return gather(tmp_path / "m.jsonl", [])


def test_an_id_of_zero_is_an_id(tmp_path):
    (request,) = listed(tmp_path, {"image": "a.png", "id": 7}, {"image": "a.png", "id": 0}, {"image": "a.png"})
    assert [a.id for a in request.regions] == ["7", "0", "2"]


@pytest.mark.parametrize("second", [{"image": "a.png", "id": "x"}, {"image": "a.png", "id": "x", "box": [1, 2, 3, 4]}])
def test_regions_of_one_name_are_refused(tmp_path, second):
    with pytest.raises(ConfigError, match=r"two regions of a\.png are called 'x'.*say them apart"):
        listed(tmp_path, {"image": "a.png", "id": "x"}, second)


def test_a_name_that_is_another_rows_number_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"two regions of a\.png are called '1'"):
        listed(tmp_path, {"image": "a.png", "id": 1}, {"image": "a.png"})


@pytest.mark.parametrize("value", [5, ["a.png"]])
def test_a_mask_is_a_file_name(tmp_path, value):
    with pytest.raises(ConfigError, match="row 1: a mask is a file name, got"):
        listed(tmp_path, {"image": "a.png", "mask": value})


@pytest.mark.parametrize(
    ("kind", "value"),
    [("polygon", 5), ("polygon", [5, "x"]), ("polygon", [[0, 0, None]]), ("box", [10**400, 1, 2, 3]), ("point", [1e300, 1])],
)
def test_what_is_no_region_is_said_so(kind, value):
    with pytest.raises(RegionError, match=f"a {kind} is .*, got"):
        Asked("", kind, value).prompt(9, 9)


def test_an_empty_list_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="names no regions"):
        listed(tmp_path)
    (tmp_path / "r.json").write_text("[]")
    with pytest.raises(ConfigError, match="names no regions"):
        gather(tmp_path / "r.json", [])


def test_a_cell_of_a_csv_may_be_of_any_length_and_hold_any_line(tmp_path):
    """What predict.py itself writes: the code of a ragged region, and names with line ends of every sort."""
    before, names = csv.field_size_limit(), ["a\u2028b.png", "a\x85b.png", "a\nb.png", "a.png"]
    long = "0" * (before + 1)
    rows = [Row(name, "1", "rle", (0, 0, 1, 1), 0.1, code={"size": [9, 9], "counts": long}) for name in names]
    out = Output(tmp_path / "s.csv", ("quality",), {})
    for row in rows:
        out.add([row])
    out.finish(len(rows))
    found = gather(tmp_path / "s.csv", [], tmp_path)
    assert [request.name for request in found] == names
    assert all(request.regions == (Asked("1", "rle", {"size": [9, 9], "counts": long}),) for request in found)
    assert csv.field_size_limit() == before


def test_a_line_of_jsonl_ends_where_it_ends(tmp_path):
    (tmp_path / "m.jsonl").write_bytes('{"image": "a\u2028b.png"}\r\n\r\n{"image": "a\x85b.png"}'.encode())
    assert [request.name for request in gather(tmp_path / "m.jsonl", [])] == ["a\u2028b.png", "a\x85b.png"]


def test_a_prediction_whose_images_lie_elsewhere_says_so(tmp_path):
    file, elsewhere = tmp_path / "scores.jsonl", tmp_path / "photos"
    rows = [{"image": f"{n}.png", "region": "whole image", "kind": "whole", "rle": {"size": [2, 2], "counts": "04"}} for n in range(2)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(
        ConfigError, match=r"scores.jsonl is what a prediction wrote, and none of its images \(0.png, say\) .* --images FOLDER"
    ):
        gather(file, ())
    assert [r.path for r in gather(file, (), elsewhere)] == [elsewhere / "0.png", elsewhere / "1.png"]
    (tmp_path / "1.png").touch()  # of some that are missing rows tell
    assert len(gather(file, ())) == 2


def test_parquet_is_no_list(tmp_path):
    (tmp_path / "scores.parquet").touch()
    with pytest.raises(ConfigError, match=r"a list is .json, .jsonl or .csv, and Parquet is not read"):
        gather(tmp_path / "scores.parquet", ())


@pytest.mark.parametrize(("kind", "value"), [("box", [0.1, 0.1, 0.4, 0.4]), ("polygon", [[0, 0, 0.5, 0, 0.5, 1]])])
def test_fractions_of_an_image_are_no_pixels(kind, value):
    """They would be a region of one pixel."""
    with pytest.raises(RegionError, match=f"{kind} .* lies within a pixel: it is given in pixels, not in fractions of the image"):
        Asked("a", kind, value).prompt(100, 100)
    Asked("a", kind, [[0, 0, 1, 0, 1, 1]] if kind == "polygon" else [0, 0, 1, 1]).prompt(100, 100)
