"""Prediction, end to end on a small run: the scores of eval.py, however a region is given; and what is bad in the input."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import pytest
import torch

import predict
import train
from components import rle
from components.mask_encoders.base import MASK_ENCODERS, Prompt
from components.mask_encoders.superpixel import Superpixel
from components.registry import ConfigError
from configs.schema import load_config
from datamodules.collate import Collate
from datamodules.datasets.base import DATASETS
from datamodules.images import ImageError
from datamodules.records import ImageRecord, RegionRecord
from datamodules.samples import RoiSample
from inference.engine import Engine
from inference.load import load
from inference.pictures import places
from inference.requests import Asked, Request
from inference.table import score_table
from tests.test_train import small


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    train.main(small(folder))
    return folder / "run"


@pytest.fixture(scope="module")
def scored(run):
    """What eval.py wrote, by region."""
    return pd.read_parquet(run / "scores.parquet").set_index("id")


@pytest.fixture(scope="module")
def test_images(run, tmp_path_factory):
    """The test split as files, and its records."""
    data = DATASETS.build(load_config(str(run / "config.yaml")).data)
    data.prepare()
    samples = data.split("test")
    folder = tmp_path_factory.mktemp("images")
    records = []
    for i in range(len(samples)):
        sample = samples[i]
        PIL.Image.fromarray(sample.image.permute(1, 2, 0).numpy()).save(folder / f"{i}.png")
        records.append((f"{i}.png", sample.record))
    return folder, records


@pytest.fixture
def photo(tmp_path):
    patches = np.random.default_rng(3).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    PIL.Image.fromarray(patches).resize((80, 60), PIL.Image.Resampling.BICUBIC).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def numbers(row):
    return [row[task][key] for task in ("quality", "importance") for key in ("value", "std")]


def same(row, expected):
    for task in ("quality", "importance"):
        assert row[task]["value"] == pytest.approx(expected[f"{task}_pred"], abs=1e-5)
        assert row[task]["std"] == pytest.approx(expected[f"{task}_std"], abs=1e-5)
        assert row[task]["text"] == expected[f"{task}_text"]
    assert row["distortion"]["text"] == expected["distortion_text"]


def test_the_reference_json_gives_the_scores_of_eval(run, scored, test_images, tmp_path):
    folder, records = test_images
    asked = [(name, region) for name, record in records for region in record.regions]
    (tmp_path / "r.json").write_text(json.dumps([{"img": name, "rle": region.counts, "points": [0, 0, 1, 1]} for name, region in asked]))
    out = predict.main([str(run), str(tmp_path / "r.json"), "--images", str(folder), "--mask-type", "rle"])
    assert out["failed"] == 0
    assert len(out["rows"]) == len(asked) == len(scored)
    for row, (name, region) in zip(out["rows"], asked, strict=True):
        assert row["image"] == name
        same(row, scored.loc[region.id])
        assert row["area"] == pytest.approx(scored.loc[region.id]["area"], abs=1e-6)


@pytest.mark.parametrize(
    ("asked", "prompt", "encoder"),
    [
        (["--box", "12,9,30,20"], Prompt(box=(12, 9, 30, 20)), "given"),
        (["--box", "50,50,300,300"], Prompt(box=(50, 50, 300, 300)), "given"),
        (["--point", "20,31"], Prompt(point=(20, 31)), "superpixel"),
        (["--box", "5,5,40,40", "--segment-boxes"], Prompt(box=(5, 5, 40, 40)), "superpixel"),
    ],
)
def test_a_box_and_a_point_give_the_scores_of_eval(run, test_images, asked, prompt, encoder):
    """eval.py scores records: one is made with this very region, and put through its table."""
    folder, records = test_images
    name = records[0][0]
    pixels = np.asarray(PIL.Image.open(folder / name))
    mask = MASK_ENCODERS.build({"plugin": encoder}).forward(pixels, [prompt])[0]
    region = RegionRecord("x", rle.encode(mask)["counts"])
    sample = RoiSample.of(pixels.copy(), ImageRecord("i", "s", "test", *mask.shape, (region,)))
    scorer = load(run)
    batches = [[Collate(scorer.preprocess, scorer.crop_size, whole=whole)([sample])] for whole in (False, True)]
    expected = score_table(scorer, [sample], *batches).iloc[0]
    (row,) = predict.main([str(run), str(folder / name), *asked])["rows"]
    same(row, expected)


def test_the_reference_json_with_boxes(run, test_images, tmp_path):
    folder, records = test_images
    (tmp_path / "r.json").write_text(json.dumps([{"img": records[0][0], "points": [12, 9, 30, 20]}]))
    (listed,) = predict.main([str(run), str(tmp_path / "r.json"), "--images", str(folder)])["rows"]
    (boxed,) = predict.main([str(run), str(folder / records[0][0]), "--box", "12,9,30,20"])["rows"]
    assert {**listed, "region": ""} == {**boxed, "region": ""}
    assert listed["box"] == [12, 9, 30, 20]


def test_every_way_to_say_one_region_in_a_manifest(run, photo):
    mask = np.zeros((60, 80), bool)
    mask[10:40, 20:50] = True
    PIL.Image.fromarray(mask.astype(np.uint8) * 255).save(photo.parent / "mask.png")
    code = rle.encode(mask)
    said = {
        "box": [20, 10, 30, 30],
        "polygon": [[20, 10, 50, 10, 50, 40, 20, 40]],
        "points": [[20, 10], [50, 10], [50, 40], [20, 40]],
        "rle": code,
        "mask": "mask.png",
    }
    rows = [{"image": "photo.png", "id": kind, "polygon" if kind == "points" else kind: value} for kind, value in said.items()] + [
        {"image": "photo.png", "rle": code["counts"]}
    ]
    (photo.parent / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = predict.main([str(run), str(photo.parent / "m.jsonl")])["rows"]
    assert [line["region"] for line in lines] == [*said, str(len(said))]
    first = numbers(lines[0])
    assert all(numbers(line) == pytest.approx(first, abs=1e-5) for line in lines)
    with (photo.parent / "m.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["image", "box", "polygon", "rle", "mask"])
        writer.writeheader()
        writer.writerow({"image": "photo.png", "box": "20,10,30,30"})
        writer.writerow({"image": "photo.png", "polygon": json.dumps(said["polygon"])})
        writer.writerow({"image": "photo.png", "rle": json.dumps(code)})
        writer.writerow({"image": "photo.png", "mask": "mask.png"})
    lines = predict.main([str(run), str(photo.parent / "m.csv")])["rows"]
    assert [line["kind"] for line in lines] == ["box", "polygon", "rle", "mask"]
    assert all(numbers(line) == pytest.approx(first, abs=1e-5) for line in lines)


def test_no_region_is_the_whole_image_and_proposals_are_many(run, photo):
    (whole,) = predict.main([str(run), str(photo)])["rows"]
    assert (whole["region"], whole["box"], whole["area"]) == ("whole image", [0, 0, 80, 60], 1.0)
    rows = predict.main([str(run), str(photo), "--propose", "--mask-encoder", "superpixel", "segments=6"])["rows"]
    assert len(rows) > 2
    assert sum(row["area"] for row in rows) == pytest.approx(1)
    assert rows[0]["region"] == "proposed 1"


def test_regions_keep_the_order_of_the_command_line(run, photo):
    asked = ["--point", "40,30", "--box", "1,2,30,20", "--point", "3,4", "--box", "5,6,7,8"]
    rows = predict.main([str(run), str(photo), *asked])["rows"]
    assert [row["region"] for row in rows] == [f"{k.removeprefix('--')} {v}" for k, v in zip(asked[::2], asked[1::2], strict=True)]


@pytest.mark.parametrize(("suffix", "options"), [("jsonl", ["--map", "map.png"]), ("csv", ["--propose"])])
def test_what_was_found_can_be_asked_about_again(run, photo, suffix, options, monkeypatch):
    """The numbers of a map, too, are in the file, with the regions themselves."""
    found = photo.parent / f"s.{suffix}"
    asked = [str(run), str(photo), "--point", "20,31", "--box", "3,4,20,30", "--mask-encoder", "superpixel", "segments=6"]
    monkeypatch.chdir(photo.parent)
    predict.main([*asked, *options, "--out", str(found)])
    first = predict.main([*asked, "--propose"])["rows"]
    again = predict.main([str(run), str(found)])["rows"]
    assert [row["region"] for row in again] == [row["region"] for row in first]
    assert len(again) > 3
    for row, before in zip(again, first, strict=True):
        assert (row["rle"], row["box"], row["kind"]) == (before["rle"], before["box"], "rle")
        assert numbers(row) == pytest.approx(numbers(before), abs=1e-5)
    failed = {"image": "photo.png", "region": "a", "kind": "point", "rle": None, "error": "outside"}
    (photo.parent / "failed.jsonl").write_text(json.dumps(failed))
    with pytest.raises(ValueError, match="its row has no run-length code, as a region that could not be scored has none"):
        predict.main([str(run), str(photo.parent / "failed.jsonl")])


def test_what_was_reduced_so_that_details_are_gone_is_told(run, tmp_path, capsys):
    image = np.random.default_rng(0).integers(0, 256, (400, 1200, 3), dtype=np.uint8)
    PIL.Image.fromarray(image).save(tmp_path / "large.png")
    side = load(run).preprocess.size
    assert 1200 / side > 4, side
    predict.main([str(run), str(tmp_path / "large.png"), "--box", "0,0,400,400", "--box", "10,10,20,20"])
    assert "note: 1 region was reduced more than 4 times" in capsys.readouterr().err  # the crop shows the small one as it is
    PIL.Image.fromarray(image[:200, :200]).save(tmp_path / "small.png")
    predict.main([str(run), str(tmp_path / "small.png"), "--box", "0,0,200,200"])
    assert "note" not in capsys.readouterr().err


def test_what_has_hardly_a_pixel_is_scored_and_told(run, tmp_path, capsys):
    PIL.Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    assert predict.main([str(run), str(tmp_path / "dot.png")])["failed"] == 0
    assert "note: 1 region is less than 8 pixels wide or high" in capsys.readouterr().err
    PIL.Image.new("RGB", (40, 40)).save(tmp_path / "dot.png")
    predict.main([str(run), str(tmp_path / "dot.png"), *(f"--box=0,0,{side}" for side in ("8,8", "40,7", "7,8"))])
    assert "note: 2 regions are less than 8 pixels wide or high" in capsys.readouterr().err


def test_boxes_that_were_cut_are_told(run, photo, capsys):
    """Most often they are two corners: the numbers fit, and another region than the one that is meant would be scored without a word."""
    rows = [{"box": [50, 10, 70, 50]}, {"polygon": [[60, 10, 95, 10, 95, 40]]}, {"box": [50, 10, 30.4, 50]}, {"box": [90, 0, 5, 5]}]
    (photo.parent / "m.jsonl").write_text("".join(json.dumps({"image": "photo.png", **row}) + "\n" for row in rows))
    told = "reached out of an image by a pixel or more and were cut to it: a box is left,top,width,height, not two corners"
    assert predict.main([str(run), str(photo.parent / "m.jsonl")])["failed"] == 1  # the last, outside, is no cut one
    assert f"note: 2 boxes or polygons {told}" in capsys.readouterr().err
    for more in (["--propose"], ["--segment-boxes"]):
        predict.main([str(run), str(photo), "--box", "50,10,70,50", *more])
        assert f"note: 1 box or polygon {told.replace('were', 'was')}" in capsys.readouterr().err
    predict.main([str(run), str(photo), "--box", "50,10,30,50"])
    assert "reached out" not in capsys.readouterr().err


def test_some_tasks(run, photo, capsys):
    (row,) = predict.main([str(run), str(photo), "--tasks", "distortion,quality"])["rows"]
    assert {"quality", "distortion"} <= row.keys()
    assert "importance" not in row
    assert capsys.readouterr().out.splitlines()[0].split() == ["image", "region", "quality", "distortion"]


def many(folder, run):
    """A folder with one broken image among several, and one of each sort that must be read."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(folder / "a.png")
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:300])
    PIL.Image.fromarray(pixels[..., 0]).save(folder / "grey.png")
    PIL.Image.fromarray(np.dstack([pixels, pixels[..., :1]])).save(folder / "alpha.png")
    PIL.Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(folder / "sixteen.png")
    PIL.Image.fromarray(pixels).convert("CMYK").save(folder / "cmyk.jpg")
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.fromarray(pixels).save(folder / "turned.jpg", exif=exif)


def test_a_broken_image_among_many_loses_nothing(run, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    many(tmp_path / "in", run)
    out = predict.main(
        [str(run), str(tmp_path / "in"), "--box", "1,2,30,20", "--out", str(tmp_path / "s.csv"), "--overlay", str(tmp_path / "drawn")]
    )
    assert (out["images"], out["failed"]) == (7, 1)
    told = capsys.readouterr()
    assert "b.png" in told.err
    assert "truncated or damaged" in told.err
    assert "1 of 7 regions could not be scored; the reasons are in the file" in told.err
    assert "scoring: 100%" in told.err
    rows = pd.read_csv(tmp_path / "s.csv")
    assert rows["error"].notna().tolist() == [name == "b.png" for name in rows["image"]]
    assert rows["quality"].notna().sum() == 6
    assert sorted(p.name for p in (tmp_path / "drawn").iterdir()) == sorted(
        n.replace(".jpg", ".png") for n in rows["image"] if n != "b.png"
    )
    with pytest.raises(ValueError, match=r"--strict: 1 of 7 regions could not be scored"):
        predict.main([str(run), str(tmp_path / "in"), "--box", "1,2,30,20", "--strict"])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"box": [100, 100, 5, 5]}], "lies outside the image of 80 x 60 pixels"),
        ([{"box": [1, 2, 3]}], "a box is left, top, width, height, 4 numbers of pixels, got"),
        ([{"box": [1, 2, -3, 4]}], "a box is left, top, width, height, got a width of -3"),
        ([{"point": [1, 2, 3]}], "a point is x, y, 2 numbers"),
        ([{"point": [200, 3]}], "lies outside the image"),
        ([{"polygon": [[1, 2]]}], "at least three finite points"),
        ([{"rle": {"size": [5, 5], "counts": [25]}}], "RLE is 5 x 5 pixels, the image is 80 x 60"),
        ([{"rle": "zzz"}], "malformed RLE counts"),
        ([{"rle": {"size": [60, 80], "counts": [4800]}}], "covers no pixel"),
        ([{"mask": "nowhere.png"}], "cannot be read"),
    ],
)
def test_a_bad_region_among_good_ones_is_told(run, photo, rows, message):
    good = [{"box": [2, 3, 4, 5]}, {"box": [7, 8, 1, 1]}]  # one of one pixel
    listed = photo.parent / "m.jsonl"
    listed.write_text("".join(json.dumps({"image": "photo.png", **row}) + "\n" for row in [*good, *rows]))
    out = predict.main([str(run), str(listed), "--out", str(photo.parent / "out.jsonl")])
    assert out["failed"] == 1
    lines = [json.loads(line) for line in (photo.parent / "out.jsonl").read_text().splitlines()]
    assert [line["error"] is None for line in lines] == [True, True, False]
    assert message in lines[2]["error"]
    assert (out["regions"], out["rows"]) == (3, [])  # they are in the file


def test_nothing_could_be_scored(run, photo):
    with pytest.raises(ValueError, match=r"none of the 1 regions could be scored: box .* lies outside the image"):
        predict.main([str(run), str(photo), "--box", "900,900,5,5"])


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("{", "x.json", "is not JSON"),
        ("{}", "x.json", "must hold a list of records with the keys img, rle, points"),
        ('[{"img": "photo.png", "pionts": [1, 2, 3, 4]}]', "x.json", "record 0: unknown key 'pionts'. Did you mean 'points'"),
        ('[{"img": "photo.png", "rle": "x"}]', "x.json", r"record 0: needs 'img' and 'points' \(--mask-type points\), got img, rle"),
        ('{"image": "photo.png", "bxo": [1, 2, 3, 4]}', "x.jsonl", "row 1: unknown key 'bxo'. Did you mean 'box'"),
        ('{"image": "photo.png", "box": [1, 2, 3, 4], "point": [1, 2]}', "x.jsonl", "a region is said in one way, got box and point"),
        ('{"box": [1, 2, 3, 4]}', "x.jsonl", "row 1: has no 'image'"),
        ("{", "x.jsonl", "is not a manifest: one JSON object a line"),
        ("[1]", "x.jsonl", "each line is one JSON object"),
        ("image,box\nphoto.png,1,2,3,4\n", "x.csv", "row 1 has more fields than the header"),
    ],
)
def test_a_list_of_another_form_is_refused_before_the_model_is_read(photo, content, name, message):
    (photo.parent / name).write_text(content)
    with pytest.raises(ConfigError, match=message):
        predict.main(["no-such-model", str(photo.parent / name)])


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        (["--box", "1,2,3"], ConfigError, "--box 1,2,3: expected left,top,width,height, got 3 numbers"),
        (["--box", "a,b,c,d"], ConfigError, "--box a,b,c,d: expected left,top,width,height, numbers of pixels"),
        (["--point", "1"], ConfigError, "--point 1: expected x,y, got 1 numbers"),
        (["--tasks", "beauty"], ConfigError, "tasks are quality, importance, distortion, or all; got 'beauty'"),
        (["--mask-encoder", "smam"], ConfigError, "no mask_encoder plugin 'smam'. Did you mean 'sam'"),
        (["--mask-encoder", "superpixel", "segmants=3"], ConfigError, "unknown key 'segmants'. Did you mean 'segments'"),
        (["--mask-encoder", "superpixel", "3"], ConfigError, "'3' is not of the form key=value"),
        (["--images", "x"], ConfigError, "--images says where the images of a list lie"),
        (["--readers", "-1"], ConfigError, "--readers -1: 0 or the number of images"),
        (["--out", "x.xlsx"], ConfigError, "its ending says the form, one of .jsonl, .csv, .parquet"),
        (["--overlay", "x.doc"], ConfigError, "its ending says the form, one of .png, .jpg"),
        (["--overlay", "x.psd"], ConfigError, "its ending says the form"),  # Pillow knows it, and cannot write it
        ([], FileNotFoundError, "no-such-model: no such folder, and no name on the hub"),
    ],
)
def test_mistakes_on_the_command_line_are_found_first(photo, more, error, message):
    with pytest.raises(error, match=message):
        predict.main(["no-such-model", str(photo), *more])


def test_where_pictures_go(tmp_path):
    """Below the folder whatever an image's name is, and never two at one place."""
    names = ["a.jpg", "deep/b.png", "../../c.png", "/abs/d.png", "e.png", "e.jpg"]
    found = places(tmp_path, names)
    told = [found[name].relative_to(tmp_path).as_posix() for name in names]
    assert told == ["a.png", "deep/b.png", "c.png", "abs/d.png", "e.png.png", "e.jpg.png"]
    assert set(places(tmp_path / "x.png", names).values()) == {tmp_path / "x.png"}


def test_other_inputs_that_will_not_do(photo, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "r.json").write_text("[]")
    with pytest.raises(FileNotFoundError, match="does not exist: give an image, a folder of images, or a list"):
        predict.main(["m", str(tmp_path / "nowhere.png")])
    with pytest.raises(ImageError, match="holds no images"):
        predict.main(["m", str(tmp_path / "empty")])
    with pytest.raises(ConfigError, match="is neither an image"):
        predict.main(["m", str(tmp_path / "notes.txt")])
    with pytest.raises(ConfigError, match=r"names its own regions: leave out --box"):
        predict.main(["m", str(tmp_path / "r.json"), "--box", "1,2,3,4"])
    shutil.copy(photo, tmp_path / "empty" / "a.png")
    shutil.copy(photo, tmp_path / "empty" / "b.png")
    with pytest.raises(ConfigError, match="there are 2 images, so it names a folder"):
        predict.main(["m", str(tmp_path / "empty"), "--overlay", "x.png"])


def test_a_task_that_the_model_cannot_answer(tmp_path, photo):
    from components.scorers.base import SCORERS
    from inference.saved import About, save

    node = {"plugin": "roi_vlm", **SCORERS.get("roi_vlm").tiny(), "readouts": {"quality": {"plugin": "levels"}}}
    save(tmp_path / "m", SCORERS.build(node), node, About())
    with pytest.raises(ValueError, match="task 'importance': RoiVLM answers quality"):
        predict.main([str(tmp_path / "m"), str(photo), "--tasks", "importance"])
    (row,) = predict.main([str(tmp_path / "m"), str(photo)])["rows"]
    assert "importance" not in row


def test_files_are_not_overwritten_silently(run, photo):
    out, drawn = photo.parent / "s.jsonl", photo.parent / "d.png"
    asked = [str(run), str(photo), "--out", str(out), "--overlay", str(drawn)]
    predict.main(asked)
    before = out.read_bytes(), drawn.read_bytes()
    for path in (out, drawn):
        kept = photo.parent / "kept"
        (drawn if path == out else out).rename(kept)
        with pytest.raises(FileExistsError, match=f"{path.name} is there already: choose another name, or replace it with --overwrite"):
            predict.main(["no-such-model", *asked[1:]])
        kept.rename(drawn if path == out else out)
    assert (out.read_bytes(), drawn.read_bytes()) == before
    predict.main([*asked, "--overwrite"])
    assert (out.read_bytes(), drawn.read_bytes()) == before
    assert sorted(p.name for p in photo.parent.iterdir()) == ["d.png", "photo.png", "s.jsonl"]


def test_what_cannot_be_written_is_found_first(photo, tmp_path):
    """A folder in the place of a file, a file in the place of a folder."""
    for name in ("s.csv", "d.png"):
        (tmp_path / name).mkdir()
    (tmp_path / "taken").touch()
    listed = tmp_path / "two.jsonl"
    listed.write_text('{"image": "a.png"}\n{"image": "b.png"}\n')
    for asked, message in (
        ([photo, "--out", tmp_path / "s.csv", "--overwrite"], r"s\.csv is a folder, and the name of a file is wanted"),
        ([photo, "--overlay", tmp_path / "d.png", "--overwrite"], r"d\.png is a folder"),
        ([photo, "--out", photo / "s.csv"], r"would lie in .*photo\.png, which is a file: choose another place"),
        ([photo, "--overlay", photo / "d.png"], r"would lie in .*photo\.png, which is a file"),
        ([listed, "--overlay", tmp_path / "taken"], r"would lie in .*taken, which is a file"),
    ):
        with pytest.raises(FileExistsError, match=message):
            predict.main(["no-such-model", *map(str, asked)])


def test_answers_that_are_no_numbers_are_no_scores(run, photo, monkeypatch):
    """Of damaged weights: neither NaN in a file nor the first word of the vocabulary."""

    def damaged(*asked):
        scorer = load(*asked)
        with torch.no_grad():
            next(iter(scorer.llm.parameters()))[:] = torch.nan
        return scorer

    monkeypatch.setattr(predict, "load", damaged)
    with pytest.raises(ValueError, match=r"none of the 2 regions could be scored: the language model's logits are not all finite"):
        predict.main([str(run), str(photo), "--box", "1,2,30,20", "--box", "3,4,5,6", "--out", str(photo.parent / "s.csv")])
    rows = pd.read_csv(photo.parent / "s.csv")
    assert rows["quality"].isna().all()
    assert rows["error"].str.contains("its weights are damaged").all()


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_killed_prediction_goes_on_to_the_same_file(run, tmp_path, monkeypatch, suffix):
    (tmp_path / "in").mkdir()
    many(tmp_path / "in", run)
    asked = [str(run), str(tmp_path / "in"), "--box", "1,2,30,20"]
    predict.main([*asked, "--out", str(tmp_path / f"whole.{suffix}")])
    seen, score = [], predict.Predictor.one

    def dies(self, request):
        if len(seen) == 3:
            raise KeyboardInterrupt
        seen.append(request.name)
        return score(self, request)

    monkeypatch.setattr(predict.Predictor, "one", dies)
    with pytest.raises(KeyboardInterrupt):
        predict.main([*asked, "--out", str(tmp_path / f"part.{suffix}")])
    draft = tmp_path / f".part.{suffix}.draft"
    draft.write_text(draft.read_text() + '{"lines": [{"ima')  # a kill in the middle of a line
    rest = []
    monkeypatch.setattr(predict.Predictor, "one", lambda self, request: rest.append(request.name) or score(self, request))
    found = predict.main([*asked, "--out", str(tmp_path / f"part.{suffix}")])
    assert len(rest) == 7 - 3
    assert (found["regions"], found["failed"]) == (7, 1)
    assert (tmp_path / f"part.{suffix}").read_bytes() == (tmp_path / f"whole.{suffix}").read_bytes()
    assert not draft.exists()


def test_killed_pictures_without_a_file_go_on(run, tmp_path, monkeypatch, capsys):
    """The same line gives every picture and every row, and leaves no draft; another line is refused."""
    folder = tmp_path / "in"
    folder.mkdir()
    for n in range(3):
        PIL.Image.new("RGB", (64, 48 + n), (60 * n, 90, 200)).save(folder / f"{n}.png")
    asked = [str(run), str(folder), "--box", "1,2,30,20", "--overlay"]
    whole = predict.main([*asked, str(tmp_path / "whole")])
    score = predict.Predictor.one

    last = ["0.png"]

    def dies(self, request):
        if request.name == last[0]:
            raise KeyboardInterrupt
        return score(self, request)

    monkeypatch.setattr(predict.Predictor, "one", dies)
    for last[0] in ("0.png", "2.png"):
        with pytest.raises(KeyboardInterrupt):
            predict.main([*asked, str(tmp_path / "drawn")])
        assert (tmp_path / ".drawn.draft").exists()
        (tmp_path / "drawn").mkdir(exist_ok=True)
        (tmp_path / "drawn" / "0.png").touch()  # drawn, and killed before it was noted
    with pytest.raises(FileExistsError, match=r"holds 2 images of another prediction.*choose another folder"):
        predict.main([*asked, str(tmp_path / "drawn"), "--tasks", "quality"])
    rest = []
    monkeypatch.setattr(predict.Predictor, "one", lambda self, request: rest.append(request.name) or score(self, request))
    capsys.readouterr()
    found = predict.main([*asked, str(tmp_path / "drawn")])
    assert rest == ["2.png"]
    assert found == whole
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:4]] == ["0.png", "1.png", "2.png"]
    assert {p.name: p.read_bytes() for p in (tmp_path / "drawn").iterdir()} == {
        p.name: p.read_bytes() for p in (tmp_path / "whole").iterdir()
    }
    assert sorted(p.name for p in tmp_path.iterdir()) == ["drawn", "in", "whole"]


@pytest.mark.parametrize("out", [True, False])
def test_a_picture_that_failed_before_the_kill_still_counts(run, tmp_path, monkeypatch, capsys, out):
    folder = tmp_path / "in"
    folder.mkdir()
    for n in range(2):
        PIL.Image.new("RGB", (64, 48), (60 * n, 90, 200)).save(folder / f"{n}.png")
    asked = [str(run), str(folder), "--box", "1,2,30,20", "--overlay", str(tmp_path / "drawn")]
    asked += ["--out", str(tmp_path / "s.jsonl")] * out
    save, score = predict.draw.save, predict.Predictor.one

    def full(picture, path):
        raise OSError("the disk is full")

    def dies(self, request):
        if request.name == "1.png":
            raise KeyboardInterrupt
        return score(self, request)

    with monkeypatch.context() as patched:
        patched.setattr(predict.draw, "save", full)
        patched.setattr(predict.Predictor, "one", dies)
        with pytest.raises(KeyboardInterrupt):
            predict.main(asked)
    assert predict.draw.save is save
    with pytest.raises(ValueError, match="--strict: pictures of 1 of 2 images could not be drawn"):
        predict.main([*asked, "--strict"])
    told = capsys.readouterr()
    assert "pictures of 1 of these could not be drawn, the first: 0.png: its overlay could not be drawn: OSError: the disk" in told.err
    assert f"drawn for 1 of 2 images: {tmp_path / 'drawn'}" in told.out
    assert [p.name for p in (tmp_path / "drawn").iterdir()] == ["1.png"]


def test_the_same_line_twice_at_once_is_refused(run, tmp_path, monkeypatch):
    for n in range(2):
        PIL.Image.new("RGB", (64, 48 + n)).save(tmp_path / f"{n}.png")
    asked = [str(run), str(tmp_path), "--out", str(tmp_path / "s.jsonl")]
    score, refused = predict.Predictor.one, []

    def twice(self, request):
        with pytest.raises(FileExistsError, match=r"process \d+ on .* is writing .*s\.jsonl") as error:
            predict.main(asked)
        refused.append(error)
        return score(self, request)

    monkeypatch.setattr(predict.Predictor, "one", twice)
    predict.main(asked)
    assert len(refused) == 2
    assert [json.loads(line)["image"] for line in (tmp_path / "s.jsonl").read_text().splitlines()] == ["0.png", "1.png"]
    assert not list(tmp_path.glob(".*"))


def test_one_folder_of_pictures_is_not_drawn_into_by_two_predictions(run, tmp_path, monkeypatch):
    """Not by the drafts of their files, which have names of their own."""
    (tmp_path / "in").mkdir()
    for n in range(2):
        PIL.Image.new("RGB", (64, 48 + n)).save(tmp_path / "in" / f"{n}.png")
    asked = [str(run), str(tmp_path / "in"), "--overlay", str(tmp_path / "drawn"), "--overwrite"]
    score, refused = predict.Predictor.one, []

    def twice(self, request):
        for out in ([], ["--out", str(tmp_path / "other.jsonl")]):
            with pytest.raises(FileExistsError, match=r"process \d+ on .* is writing .*drawn: .* choose another folder"):
                predict.main([*asked, *out])
            refused.append(out)
        return score(self, request)

    monkeypatch.setattr(predict.Predictor, "one", twice)
    predict.main([*asked, "--out", str(tmp_path / "s.jsonl")])
    predict.main(asked)
    assert len(refused) == 8
    assert not list(tmp_path.glob(".*"))


def test_an_overlay_and_a_map_are_two_places(run, photo):
    with pytest.raises(ConfigError, match=r"--overlay and --map are both .*one\.png"):
        predict.main([str(run), str(photo), "--overlay", str(photo.with_name("one.png")), "--map", str(photo.with_name("one.png"))])


def dies_after_one(monkeypatch):
    """A prediction ends before its second image, as by a kill."""
    score, seen = predict.Predictor.one, []

    def dies(self, request):
        if seen:
            raise KeyboardInterrupt
        seen.append(request.name)
        return score(self, request)

    monkeypatch.setattr(predict.Predictor, "one", dies)


def test_a_draft_of_another_prediction_does_not_count(run, tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    many(tmp_path / "in", run)
    score = predict.Predictor.one
    dies_after_one(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        predict.main([str(run), str(tmp_path / "in"), "--box", "1,2,30,20", "--out", str(tmp_path / "s.csv")])
    monkeypatch.setattr(predict.Predictor, "one", score)
    again = [str(run), str(tmp_path / "in"), "--box", "9,9,9,9", "--out", str(tmp_path / "s.csv")]
    with pytest.raises(FileExistsError, match="holds 1 images of another prediction"):
        predict.main(again)  # scored rows are not thrown away unasked
    drawn = [str(run), str(tmp_path / "in"), "--box", "1,2,30,20", "--out", str(tmp_path / "s.csv"), "--overlay", str(tmp_path / "drawn")]
    with pytest.raises(FileExistsError, match="holds 1 images of another prediction"):
        predict.main(drawn)  # the first image's picture would be missing
    predict.main([*again, "--overwrite"])
    assert set(pd.read_csv(tmp_path / "s.csv")["region"]) == {"box 9,9,9,9"}


def test_another_commit_of_a_model_on_the_hub_is_another_prediction(run, tmp_path, monkeypatch):
    """The rows of one file are one model's: a name alone would go on with what was pushed meanwhile."""
    (tmp_path / "in").mkdir()
    many(tmp_path / "in", run)
    for commit in ("1a2b", "3c4d"):
        (tmp_path / commit).symlink_to(run)
    latest, score = ["1a2b"], predict.Predictor.one
    monkeypatch.setattr("inference.load.snapshot_download", lambda name, **options: str(tmp_path / latest[-1]))

    dies_after_one(monkeypatch)
    asked = ["me/scorer", str(tmp_path / "in"), "--box", "1,2,30,20", "--out", str(tmp_path / "s.csv")]
    with pytest.raises(KeyboardInterrupt):
        predict.main(asked)
    monkeypatch.setattr(predict.Predictor, "one", score)
    latest.append("3c4d")
    with pytest.raises(FileExistsError, match="holds 1 images of another prediction"):
        predict.main(asked)
    latest.append("1a2b")
    assert predict.main(asked)["regions"] == 7


def test_a_mask_that_changed_is_another_prediction(run, photo, monkeypatch):
    mask = photo.parent / "mask.png"
    PIL.Image.fromarray(np.full((60, 80), 255, np.uint8)).save(mask)
    listed = photo.parent / "m.jsonl"
    shutil.copy(photo, photo.parent / "other.png")
    listed.write_text("".join(json.dumps({"image": name, "mask": "mask.png"}) + "\n" for name in ("photo.png", "other.png")))
    asked = [str(run), str(listed), "--out", str(photo.parent / "s.jsonl")]
    score = predict.Predictor.one

    def dies(self, request):
        if request.name == "other.png":
            raise KeyboardInterrupt
        return score(self, request)

    monkeypatch.setattr(predict.Predictor, "one", dies)
    with pytest.raises(KeyboardInterrupt):
        predict.main(asked)
    monkeypatch.setattr(predict.Predictor, "one", score)
    half = np.zeros((60, 80), np.uint8)
    half[:, 40:] = 255
    PIL.Image.fromarray(half).save(mask)
    with pytest.raises(FileExistsError, match="holds 1 images of another prediction"):
        predict.main(asked)


def test_many_regions_are_scored_in_parts_to_the_same_numbers(run, photo, monkeypatch):
    asked = [str(run), str(photo), "--propose"]
    whole = predict.main(asked)["rows"]
    asked_at_once = []
    answer = Engine.answer
    monkeypatch.setattr(Engine, "answer", lambda self, seen, r, t: asked_at_once.append(len(r.valid)) or answer(self, seen, r, t))
    parts = predict.main([*asked, "--memory", "1"])["rows"]
    assert len(asked_at_once) > 1
    assert [row["region"] for row in parts] == [row["region"] for row in whole]
    for a, b in zip(parts, whole, strict=True):
        assert a["quality"]["value"] == pytest.approx(b["quality"]["value"], abs=1e-5)


def test_the_device_is_heard(run, photo):
    assert predict.main([str(run), str(photo), "--accelerator", "cpu"])["failed"] == 0
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="accelerator is gpu, but torch sees none"):
            predict.main([str(run), str(photo), "--accelerator", "gpu"])


def test_pictures_never_share_a_place():
    names = ["../c.png", "c.png", "/abs/d.png", "abs/d.png", "e.png", "e.jpg", "e.png.png"]
    assert len(set(places(Path("drawn"), names).values())) == len(names)


def test_a_useless_draft_does_not_open_a_folder_of_pictures(run, tmp_path):
    (tmp_path / "in").mkdir()
    many(tmp_path / "in", run)
    (tmp_path / "drawn").mkdir()
    (tmp_path / "drawn" / "a.png").write_text("mine")
    (tmp_path / ".s.csv.draft").write_text('{"identity": "of something else"}\n')
    with pytest.raises(FileExistsError, match="is there already and not empty"):
        predict.main([str(run), str(tmp_path / "in"), "--out", str(tmp_path / "s.csv"), "--overlay", str(tmp_path / "drawn")])
    assert (tmp_path / "drawn" / "a.png").read_text() == "mine"


def test_an_image_in_which_nothing_is_found_is_a_row(run, photo, monkeypatch):
    monkeypatch.setattr(Superpixel, "propose_codes", lambda self, image: iter(()))
    with pytest.raises(ValueError, match="none of the 1 regions could be scored: the mask encoder found no region"):
        predict.main([str(run), str(photo), "--propose"])


def test_an_encoder_that_cannot_propose_is_refused_before_the_model_is_read(photo):
    with pytest.raises(ConfigError, match="the mask encoder 'given' finds nothing by itself"):
        predict.main(["nowhere", str(photo), "--propose", "--mask-encoder", "given"])


def test_a_table_has_types_and_the_same_numbers(run, photo):
    asked = [str(run), str(photo), "--propose", "--out"]
    for name in ("s.csv", "s.parquet"):
        predict.main([*asked, str(photo.parent / name)])
    as_csv, table = pd.read_csv(photo.parent / "s.csv"), pd.read_parquet(photo.parent / "s.parquet")
    assert list(table.columns) == list(as_csv.columns)
    assert table["quality"].dtype == table["importance_std"].dtype == np.float64
    assert table["left"].dtype == np.int64
    assert table["quality_parsed"].dtype == bool
    np.testing.assert_allclose(table["quality"], as_csv["quality"], rtol=1e-12)
    assert table["distortion"].tolist() == pd.read_csv(photo.parent / "s.csv", keep_default_na=False)["distortion"].tolist()
    assert table["error"].isna().all()
    (line,) = predict.main([str(run), str(photo)])["rows"]
    predict.main([str(run), str(photo), "--out", str(photo.parent / "one.parquet")])
    (row,) = pd.read_parquet(photo.parent / "one.parquet").to_dict("records")
    assert dict(row["quality_levels"]) == pytest.approx(line["quality"]["levels"])
    assert len(row["quality_levels"]) == 5
    assert {"size": [row["image_height"], row["image_width"]], "counts": row["counts"]} == line["rle"]
    assert json.loads(as_csv["quality_levels"][0]) == pytest.approx(dict(table["quality_levels"][0]))


def test_a_map_of_one_image_and_of_a_folder(run, test_images, tmp_path):
    folder, _ = test_images
    one = sorted(folder.glob("*.png"))[0]
    found = predict.main([str(run), str(one), "--map", str(tmp_path / "map.png")])
    assert len(found["rows"]) > 1
    assert {row["kind"] for row in found["rows"]} == {"proposed"}
    with PIL.Image.open(tmp_path / "map.png") as picture:
        assert picture.width > picture.height > 300
    two = tmp_path / "two"
    two.mkdir()
    for n, path in enumerate(sorted(folder.glob("*.png"))[:2]):
        shutil.copy(path, two / f"{n}.png")
    predict.main([str(run), str(two), "--map", str(tmp_path / "maps"), "--overlay", str(tmp_path / "drawn")])
    assert (
        sorted(p.name for p in (tmp_path / "maps").iterdir())
        == sorted(p.name for p in (tmp_path / "drawn").iterdir())
        == ["0.png", "1.png"]
    )
    with pytest.raises(ConfigError, match="a map shows quality or importance, and only distortion is asked for"):
        predict.main([str(run), str(one), "--map", str(tmp_path / "other.png"), "--tasks", "distortion"])
    with pytest.raises(FileExistsError, match=r"map\.png is there already"):
        predict.main([str(run), str(one), "--map", str(tmp_path / "map.png")])
    with pytest.raises(ConfigError, match="there are 2 images, so it names a folder"):
        predict.main([str(run), str(two), "--map", str(tmp_path / "a.png")])


@pytest.mark.parametrize(("options", "shared"), [((), True), (("--readers", "1"), False)])
def test_a_folder_is_read_ahead_on_cores_of_its_own(run, tmp_path, monkeypatch, options, shared):
    """Where PyTorch would take both cores: else the model waits for each image to be decoded."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for n in range(3):
        PIL.Image.new("RGB", (40, 40 + n)).save(tmp_path / f"{n}.png")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    threads, answer, seen = [2], predict.Predictor.one, []
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads[-1])
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(predict.Predictor, "one", lambda self, r: seen.append((self.readers, threads[-1])) or answer(self, r))
    predict.main([str(run), str(tmp_path), *options])
    assert seen == [(2, 1) if shared else (1, 2)] * 3
    assert threads == ([2, 1, 2] if shared else [2])


def test_a_budget_is_positive(run, photo):
    with pytest.raises(ConfigError, match="--memory 0: a positive number of MiB"):
        predict.main([str(run), str(photo), "--memory", "0"])


def test_a_broken_image_in_the_middle_loses_nothing_while_others_are_read_ahead(run, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for n in range(6):
        PIL.Image.fromarray(rng.integers(0, 256, (40 + n, 50, 3), dtype=np.uint8)).save(folder / f"{n}.png")
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:200])
    found = predict.main([str(run), str(folder), "--box", "1,2,30,20", "--readers", "2"])
    assert [row["image"] for row in found["rows"]] == [f"{n}.png" for n in range(6)]
    assert [row["error"] is None for row in found["rows"]] == [n != 3 for n in range(6)]
    for n in (2, 4):
        alone = predict.main([str(run), str(folder / f"{n}.png"), "--box", "1,2,30,20"])["rows"][0]
        assert alone["quality"]["value"] == pytest.approx(found["rows"][n]["quality"]["value"], abs=1e-6)


def test_progress_counts_regions_where_their_number_is_known():
    boxes = Request("a", Path("a"), tuple(Asked(str(n), "box", (0, 0, 1, 1)) for n in range(3)))
    found = Request("b", Path("b"), (Asked("all", "proposed"),))
    assert predict._counts([boxes, boxes]) == [3, 3]
    assert predict._counts([boxes, found]) is None
    with predict._bar([3, 3], 2, 1) as bar:
        assert (bar.unit, bar.total, bar.n) == ("region", 6, 3)
    with predict._bar(None, 3, 1) as bar:
        assert (bar.unit, bar.total, bar.n) == ("image", 3, 1)
    assert predict._bar([3], 1, 0).disable
    assert not predict._bar([120], 1, 0).disable


def test_a_stamp_tells_whether_a_file_changed(tmp_path):
    (tmp_path / "last.ckpt").mkdir()
    shard = tmp_path / "last.ckpt" / "0.distcp"
    shard.write_text("a")
    for path in (shard, shard.parent):
        before = predict._stamp(path)
        shard.write_text(shard.read_text() + "b")
        assert predict._stamp(path) != before
    assert predict._stamp(tmp_path / "nowhere") is None
