"""Each fault that is planted into a list of regions is found, counted and located by its line, and nothing else; a clean list has none."""

from __future__ import annotations

import json
import shutil
import warnings

import pytest
import torch

import prepare
from components.registry import ConfigError
from datamodules.datasets.roi_folder import RoiFolder
from datamodules.findings import KINDS
from datamodules.listed_images import MISSING
from datamodules.records import SPLITS
from tests.datamodules.list_faults import (
    FAULTS,
    IMAGES,
    OPTIONS,
    clean_rows,
    every,
    in_row,
    opinions,
    pack,
    without_splits,
    write_images,
    write_list,
)
from tests.datamodules.told import told

ROWS = 2 * IMAGES
OF_THE_LIST = (
    "an unknown column",
    "scores of another scale",
    "two groups to deal",
    "all at once",
)  # no image is at fault: only mending helps


@pytest.fixture
def folder(tmp_path):
    write_images(tmp_path)
    return tmp_path


@pytest.fixture
def checked(folder, prepare_command):
    """Plants a fault: -> (exit status, what was printed, problems.json)."""

    def check(change=lambda folder, rows: None):
        rows = clean_rows()
        change(folder, rows)
        write_list(folder, rows)
        status, text = prepare_command("validate", folder, "--json", folder / "problems.json", "--data", *OPTIONS)
        return status, text, json.loads((folder / "problems.json").read_text())

    return check


def trained(folder, **options):
    """The data set as training takes it, and what it says."""
    dataset = RoiFolder(root=str(folder), quality_scale=(1, 5), cache=str(folder / "cache"), **options)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        dataset.prepare()
    return [dataset.split(s)[i] for s in SPLITS for i in range(len(dataset.split(s)))], " ".join(str(w.message) for w in said)


def test_nothing_is_found_in_a_clean_list(folder, checked):
    status, text, problems = checked()
    assert (status, problems["problems"], problems["unusable"]) == (0, [], [])
    known = "quality 100.0%, quality_std 100.0%, importance 100.0%, importance_std 100.0%, distortions 66.7%"
    assert text.splitlines() == [
        "12 of 12 images (100.0%) can be used (8 train, 2 val, 2 test)",
        "24 of 24 rows of the list (100.0%) can be used",
        f"24 regions; known of them: {known}",
    ]
    assert not (folder / "outputs").exists()
    samples, said = trained(folder)
    assert (len(samples), said) == (IMAGES, "")


@pytest.mark.parametrize("change", [opinions({"quality": 2, "importance": 0.3}, {"quality": 3}), without_splits(6)])
def test_nor_in_one_with_opinions_or_without_splits(checked, change):
    status, text, problems = checked(change)
    assert (status, problems["problems"]) == (0, [])
    assert "12 of 12 images (100.0%)" in text


@pytest.mark.parametrize("archive", ["photos.zip", "photos.tar"])
def test_images_and_masks_are_read_inside_archives_too(folder, checked, archive):
    """They are the same samples, and scenes are told apart by what is inside."""
    rows = clean_rows()
    write_list(folder, rows)
    plain, _ = trained(folder)
    pack(folder, [*(f"{n}.png" for n in range(IMAGES)), "mask.png"], archive)

    def name_members(folder, rows):
        for row in rows:
            row.update({column: f"{archive}::in/{row[column]}" for column in ("image", "mask") if row.get(column)})
            del row["group"]

    status, _, problems = checked(name_members)
    assert (status, problems["problems"]) == (0, [])
    packed, said = trained(folder)
    assert said == ""
    assert len({sample.record.source for sample in packed}) == IMAGES
    assert sorted(sample.record.path for sample in packed) == sorted(f"{archive}::in/{sample.record.path}" for sample in plain)
    whole = {sample.record.path: sample for sample in packed}
    for sample in plain:
        other = whole[f"{archive}::in/{sample.record.path}"]
        assert torch.equal(other.image, sample.image)
        assert torch.equal(other.masks(), sample.masks())


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_and_nothing_else(folder, checked, name):
    change, expected, place, images, rows = FAULTS[name]
    status, text, problems = checked(change)
    found = told(text)
    assert {kind: weight for kind, (weight, _) in found.items()} == {kind: KINDS[kind][0] for kind in expected}
    assert all(count is None or found[kind][1] == count for kind, count in expected.items())
    assert status == any(KINDS[kind][0] == "error" for kind in expected)
    assert problems["errors"] == sum(count for weight, count in found.values() if weight == "error")
    assert place in text
    coverage = problems["coverage"]
    assert (coverage["images"] - coverage["usable"], sum(coverage["left_out"].values()) - ("" in problems["unusable"])) == (images, images)
    listed = coverage["rows"]
    assert (listed["listed"] - listed["usable"], sum(listed["left_out"].values())) == (rows, rows)
    assert f"{listed['usable']} of {listed['listed']} rows of the list" in text


@pytest.mark.parametrize("name", [name for name in FAULTS if name not in OF_THE_LIST])
def test_training_goes_on_with_what_is_whole_and_says_so(folder, checked, name):
    """Without the file of problems it stops at what is an error of the list, with it it leaves out what the command said."""
    change, expected, *_ = FAULTS[name]
    _, _, problems = checked(change)
    stops = bool(problems["unusable"]) and not {*expected} <= {*MISSING, "image twice in splits"}
    if stops:
        with pytest.raises(ConfigError, match=r"labels\.csv: \d+ mistakes: line \d+: .*exclude=problems\.json"):
            trained(folder)
    samples, said = trained(folder, exclude=str(folder / "problems.json"))
    assert len(samples) == problems["coverage"]["usable"]
    assert all(sample.masks().any() for sample in samples)
    assert not {s.record.id for s in samples} & set(problems["unusable"])
    if problems["unusable"]:
        assert f"{len(problems['unusable'])} images of labels.csv are left out, being named in" in said


@pytest.mark.parametrize(("first", "last", "split"), [(0, 8, "train"), (10, 12, "test")])
def test_a_split_of_which_nothing_is_left_is_a_warning(checked, first, last, split):
    count = last - first
    status, text, _ = checked(lambda folder, rows: [(folder / f"{n}.png").unlink() for n in range(first, last)])
    assert (status, told(text)) == (1, {"image missing": ("error", count), "split empty": ("warning", 1)})
    assert f"\n    {split}: all of its {count} images must be left out\n" in text


def test_a_page_under_an_exclusion_says_each_thing_once(folder, checked):
    """Deviations that cannot be are written into the table, and counted when it is read."""
    checked(lambda folder, rows: rows[8].update(quality="?") or rows[2].update(quality_std=3.5))
    options = ["--data", *OPTIONS, f"cache={folder / 'cache'}", f"exclude={folder / 'problems.json'}"]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        prepare.main(["show", str(folder), str(folder / "page.html"), "--pictures", "1", *options])
    told_once = [str(w.message) for w in said]
    assert len(told_once) == len({*told_once}) == 2
    assert "1 images of labels.csv are left out, being named in" in told_once[0]
    assert "1 labels (scores or standard deviations that cannot be of their scale" in told_once[1]


@pytest.mark.parametrize("name", OF_THE_LIST[:2])
def test_what_is_wrong_with_the_list_as_a_whole_must_be_mended(folder, checked, name):
    checked(FAULTS[name][0])
    with pytest.raises(ConfigError, match="1 mistakes: "):
        trained(folder, exclude=str(folder / "problems.json"))


def test_training_tells_all_that_is_wrong_in_one_message(folder, checked):
    """What cannot be used, and what is cut, stand beside the mistakes."""
    checked(FAULTS["all at once"][0])
    with pytest.raises(ConfigError) as raised:
        trained(folder)
    said = str(raised.value)
    assert "6 mistakes: " in said
    for part in (
        "line 1: unknown column 'mos'",
        "line 6: quality 9 lies outside its scale",
        "line 14: box",
        "line 16: split is train, val, test",
        "line 19: image 8.png is in the groups",
        "line 20: a row has an image",
        "Besides, 1 images cannot be used: image",
        "0.png does not exist",
        "Besides, 1 boxes or polygons reach out of their images: line 10: box 25 2 9 9 reaches out",
    ):
        assert part in said


def test_why_rows_are_lost_is_counted(checked):
    _, text, problems = checked(FAULTS["all at once"][0])
    reasons = {"image missing": 2, "label out of scale": 1, "region": 1, "split": 1, "group": 1, "row": 1, "beside a mistake": 5}
    assert problems["coverage"]["rows"] == {"listed": ROWS, "usable": ROWS - 12, "left_out": reasons}
    assert "12 of 24 rows of the list (50.0%) can be used; left out: " in text
    assert "6 of 12 images (50.0%) can be used (4 train, 0 val, 2 test); left out: image missing 1, " in text


@pytest.mark.parametrize("lost", [False, True])
def test_images_that_are_test_images_of_other_data_are_told_and_left_out(folder, prepare_command, tmp_path_factory, lost):
    """A test image may be one of theirs, too: nobody learns from it."""
    other = tmp_path_factory.mktemp("other")
    for place in (folder, other):
        write_images(place)
    write_list(folder, clean_rows())
    theirs = clean_rows()
    for row in theirs[16:20]:  # 8.png and 9.png, which are of val here; 11.png is of test here and there
        row["split"] = "test"
    write_list(other, theirs)
    shutil.copy(folder / "1.png", other / "10.png")
    shutil.copy(folder / "2.png", other / "3.png")  # one of their training images
    if lost:
        (other / "9.png").unlink()
        (other / "5.png").unlink()  # no test image
    status, text = prepare_command("validate", folder, "--apart", other, "--json", folder / "problems.json", "--data", *OPTIONS)
    problems = json.loads((folder / "problems.json").read_text())
    found = ["1.png", "8.png"] if lost else ["1.png", "8.png", "9.png"]
    empty = {} if lost else {"split empty": ("warning", 1)}  # val
    assert (status, told(text)) == (1, {"image in another test": ("error", len(found)), **empty})
    assert problems["unusable"] == found
    assert f"labels.csv line 4, image '1.png': also at {other / 'labels.csv'} line 22, image '10.png'" in text
    assert f"{IMAGES - len(found)} of 12 images" in text
    assert f"{ROWS - 2 * len(found)} of 24 rows of the list" in text
    assert f"left out: image in another test {2 * len(found)}\n" in text
    known = "3 of 4 test images" if lost else "4 of 4 test images"
    assert f"compared with {known} of {other} (" in text
    assert ("; the others are not there, and have no hash" in text) == lost
    samples, _ = trained(folder, exclude=str(folder / "problems.json"))
    assert {f"{n}.png" for n in range(IMAGES)} - {s.record.id for s in samples} == set(found)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (in_row(24, split="tset"), "labels.csv line 24, image '11.png': split is train, val, test in every row, or in none; got 'tset'"),
        (in_row(24, id=""), "labels.csv line 24, image '11.png': a row has an image, an id"),
        (in_row(24, spilt="test"), "unknown column 'spilt'"),
        (in_row(25, group="another"), "image 11.png is in the groups"),
        (in_row(25, split="train"), "the group 'scene 5' is in test and in train"),
        (without_splits(6), "labels.csv names no splits, which each training deals by its own seed"),
        (every(split=lambda split: "val" if split == "test" else split), "labels.csv has no test image"),
    ],
)
def test_nothing_is_kept_apart_from_a_list_whose_test_images_are_unsure(folder, prepare_command, tmp_path_factory, change, said):
    other, theirs = tmp_path_factory.mktemp("other"), clean_rows()
    for place in (folder, other):
        write_images(place)
    write_list(folder, clean_rows())
    change(other, theirs)
    write_list(other, theirs)
    status, text = prepare_command("validate", folder, "--apart", other, "--data", *OPTIONS)
    assert status == 1
    assert said in text
    assert "can be used" not in text


def test_nor_from_one_whose_values_hide_an_image(folder, prepare_command, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    write_images(other)
    write_list(folder, clean_rows())
    theirs = [{key: value for key, value in row.items() if value != ""} for row in clean_rows()]
    for row in theirs[-2:]:
        row["quality"] = True
    (other / "labels.jsonl").write_text("\n".join(map(json.dumps, theirs)))
    status, text = prepare_command("validate", folder, "--apart", other, "--data", *OPTIONS)
    assert status == 1
    assert "labels.jsonl line 23, image '11.png': quality is a number; got true" in text


def test_a_list_in_jsonl_is_checked_as_well(folder, prepare_command):
    rows = [{key: value for key, value in row.items() if value != ""} for row in clean_rows()]
    rows[8]["quality"] = 7
    lines = [json.dumps(row) for row in rows]
    (folder / "labels.jsonl").write_text("\n\n".join([*lines[:4], "{", *lines[4:]]))
    status, text = prepare_command("validate", folder, "--json", folder / "problems.json", "--data", *OPTIONS)
    assert (status, told(text)) == (1, {"row": ("error", 1), "label out of scale": ("error", 1)})
    assert "    labels.jsonl line 9: no JSON (" in text
    assert "    labels.jsonl line 19, image '4.png': quality 7 lies outside" in text
    assert "22 of 25 rows of the list (88.0%) can be used; left out: row 1, label out of scale 1, beside a mistake 1" in text
    samples, _ = trained(folder, table="labels.jsonl", exclude=str(folder / "problems.json"))
    assert len(samples) == IMAGES - 1


@pytest.mark.parametrize(
    ("values", "kind", "said"),
    [
        ({"distortion": 5}, "distortion", "distortion is a text, or a list of texts or of pairs of severity and type; got 5"),
        ({"distortion": [5]}, "distortion", "distortion is a text, or a list"),
        ({"distortion": True}, "distortion", "distortion is a text, or a list"),
        ({"distortion": [["severe", ["blur"]]]}, "distortion", "distortion is a text, or a list"),
        ({"quality": 10**400}, "number", "quality is a number; got 1000"),
        ({"quality": True}, "number", "quality is a number; got true"),
        ({"importance_std": [0.1]}, "number", "importance_std is a number; got [0.1]"),
        ({"semantic": 5}, "row", "semantic is a text; got 5"),
        ({"semantic": "a cup \ud83d"}, "row", '"semantic" holds half a character (one of'),
        ({"distortion": [["severe", "\udc00"]]}, "row", '"distortion" holds half a character (one of'),
        ({"description": ["a"]}, "row", 'description is a text; got ["a"]'),
        ({"id": {}}, "row", "id is a text or a number; got {}"),
        ({"group": [1]}, "row", "group is a text or a number; got [1]"),
        ({"split": 1}, "row", "split is a text; got 1"),
        ({"box": 7}, "region", "box is left, top, width, height: a text or a list; got 7"),
        ({"box": [1, 2, 3, 10**400]}, "region", "int too large"),
        ({"box": {"left": 1}}, "region", "box is left, top, width, height"),
        ({"box": None, "polygon": 7}, "region", "polygon is rings of x, y"),
        ({"box": None, "rle": 7}, "mask", "rle is a text, or a mapping of size and counts; got 7"),
        ({"box": None, "rle": {"size": 3}}, "mask", ""),
        ({"box": None, "mask": 7}, "row", "mask is a text; got 7"),
        ({"box": None, "mask": f"{'n' * 300}.png"}, "mask", ""),
    ],
)
def test_values_of_other_types_in_jsonl_are_mistakes_of_their_lines(folder, prepare_command, values, kind, said):
    rows = [{key: value for key, value in row.items() if value != ""} for row in clean_rows()]
    rows[8].update(values)
    (folder / "labels.jsonl").write_text("\n".join(map(json.dumps, rows)))
    status, text = prepare_command("validate", folder, "--json", folder / "problems.json", "--data", *OPTIONS)
    assert (status, told(text)) == (1, {kind: ("error", 1)})
    assert f"    labels.jsonl line 9, image '4.png': {said}" in text
    samples, _ = trained(folder, table="labels.jsonl", exclude=str(folder / "problems.json"))
    assert len(samples) == IMAGES - 1


def test_an_image_name_that_cannot_be_written_is_a_mistake_of_its_line(folder, prepare_command):
    rows = [{key: value for key, value in row.items() if value != ""} for row in clean_rows()]
    rows[8]["image"] = "\ud800.png"
    rows[9]["semantic"] = "a \U0001f375"  # in two halves that are whole together
    (folder / "labels.jsonl").write_text("\n".join(map(json.dumps, rows)))
    status, text = prepare_command("validate", folder, "--data", *OPTIONS)
    assert (status, told(text)) == (1, {"row": ("error", 1)})
    assert '    labels.jsonl line 9: "image" holds half a character' in text


def test_an_image_name_that_no_file_can_have_is_missing(folder, checked):
    long = f"{'n' * 300}.png"

    def plant(folder, rows):
        for row in rows[8:10]:
            row["image"] = long

    status, text, problems = checked(plant)
    assert (status, told(text), problems["unusable"]) == (1, {"image missing": ("error", 1)}, [long])
    assert len(trained(folder)[0]) == IMAGES - 1


def test_what_an_exclusion_names_and_the_list_has_not_is_said(folder):
    write_list(folder, clean_rows())
    (folder / "mine.json").write_text(json.dumps({"unusable": ["4.png", "4.jpg"], "unusable_rows": [["part.parquet", 3]]}))
    for _ in range(2):  # when the list is read, and when its table is there
        samples, said = trained(folder, exclude=str(folder / "mine.json"))
        assert len(samples) == IMAGES - 1
        assert (
            f"exclude: 2 of what {folder / 'mine.json'} leaves out ('4.jpg', 'row 3 of part.parquet') are no images of labels.csv" in said
        )


def test_a_list_that_is_not_there_or_no_list_is_an_error(folder, prepare_command):
    status, text = prepare_command("validate", folder, "--data", "table=mine.csv")
    assert status == 1
    assert "the list of regions" in text
    (folder / "labels.csv").write_text('image,id,box\n\n0.png,1,"1 1')
    status, text = prepare_command("validate", folder)
    assert status == 1
    assert "cannot be read as csv: line 3: unexpected end of data" in text
    (folder / "labels.csv").write_text("image;id;box\n0.png;1;1 1 3 3\n")
    status, text = prepare_command("validate", folder)
    assert status == 1
    assert "cannot be read as csv: line 1: its cells are parted by ';': write commas between them" in text
    for nothing in ("", "\n", "image,id,box\n"):
        (folder / "labels.csv").write_text(nothing)
        status, text = prepare_command("validate", folder)
        assert status == 1
        assert "labels.csv: it lists nothing" in text


def test_training_names_the_scale_that_scores_seem_to_have(folder):
    write_list(folder, clean_rows())
    with pytest.raises(
        ConfigError, match=r"1 mistakes: 24 of 24 scores of quality .* 0 to 1: they go from 1\.\d+ to 4\.\d+\. .*quality_scale=\["
    ):
        RoiFolder(root=str(folder), cache=str(folder / "cache")).prepare()
