"""Each planted fault is found, counted and located, and nothing else; clean data has none."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import warnings
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import prepare
from components import rle
from components.llm_adapters.base import LLM_ADAPTERS
from components.preprocess import Preprocess, mask_boxes
from components.prompts import Dialogue
from components.readouts.base import READOUTS
from components.teaching import label_of
from datamodules.collate import Collate
from datamodules.datasets.indexed import Indexed
from datamodules.findings import KINDS, Report
from datamodules.records import SPLITS, ImageRecord, RegionRecord, Scale, encode_png
from datamodules.tables import SCHEMA, to_row
from datamodules.validation import Spreads, validate
from tests.datamodules import list_faults
from tests.datamodules.told import told

HEIGHT, WIDTH, IMAGES = 12, 17, 30
MOS = Scale(1, 5)


def mask(left: int, width: int = 3) -> str:
    pixels = np.zeros((HEIGHT, WIDTH), bool)
    pixels[2:9, left : left + width] = True
    return rle.encode(pixels)["counts"]


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """Rows of thirty images, a third each embedded, beside the table and in an archive; opinion scores on 1 to 5."""
    folder, rng = tmp_path_factory.mktemp("clean"), np.random.default_rng(0)
    (folder / "photos").mkdir()
    rows = []
    with zipfile.ZipFile(folder / "Blur_3.zip", "w") as archive:
        for n in range(IMAGES):
            png = encode_png(rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))
            path = ("", f"photos/{n}.png", f"Blur_3.zip::Blur_3/{n}.png")[n % 3]
            if n % 3 == 1:
                (folder / path).write_bytes(png)
            elif n % 3 == 2:
                archive.writestr(f"Blur_3/{n}.png", png)
            scores = {"quality": rng.uniform(0.2, 0.8), "quality_std": 0.15, "quality_scale": MOS, "importance": rng.uniform(0.2, 0.8)}
            scores["importance_std"] = 0.1
            pairs = ((("blur", "minor"), ("noise", "severe")), (), None)[n % 3]
            regions = tuple(RegionRecord(f"{n}-{r}", mask(3 * r), **scores, distortions=pairs) for r in range(3))
            split = ("train", "train", "train", "val", "test")[n // 2 % 5]
            record = ImageRecord(f"image {n}", f"scene {n // 2}", split, HEIGHT, WIDTH, regions, b"" if path else png, path)
            rows.append(to_row(record))
    return folder, rows


@pytest.fixture
def data(clean, tmp_path):
    """A copy of the images, and the rows, to plant faults into."""
    folder, rows = clean
    for source in folder.rglob("*"):
        if source.is_file():
            target = tmp_path / source.relative_to(folder)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(source.read_bytes())
    return tmp_path, copy.deepcopy(rows)


def found(folder, rows, decode=True):
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), folder / "part.parquet")
    return validate(folder, Indexed(root=str(folder)).files, decode)


def checked(command, folder, rows, *options):
    """(exit status, what was printed, problems.json) of the command on a table of the rows."""
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), folder / "part.parquet")
    status, text = command("validate", folder, "--json", folder / "problems.json", *options)
    return status, text, json.loads((folder / "problems.json").read_text())


def test_the_command_finds_nothing_in_clean_data(data, prepare_command):
    for options in ([], ["--images"]):
        status, text, problems = checked(prepare_command, *data, *options)
        assert (status, problems["problems"], problems["unusable"]) == (0, [], [])
        assert text.splitlines() == [
            "30 of 30 images (100.0%) can be used (18 train, 6 val, 6 test)",
            "90 regions; known of them: quality 100.0%, quality_std 100.0%, importance 100.0%, importance_std 100.0%, distortions 66.7%",
        ]


def test_nothing_is_found_in_clean_data(data):
    report = found(*data)
    assert report.counts == {}
    assert report.errors == 0
    assert (report.images, report.regions, report.unusable) == (IMAGES, 3 * IMAGES, {})
    assert dict(report.labelled) == {"quality": 90, "quality_std": 90, "importance": 90, "importance_std": 90, "distortions": 60}
    assert "30 of 30 images (100.0%) can be used" in report.text()
    assert "known of them: quality 100.0%, quality_std 100.0%, importance 100.0%, importance_std 100.0%, distortions" in report.text()


def region(rows, n, r=0):
    return rows[n]["regions"][r]


def plant(change):
    return lambda folder, rows: change(rows)


def in_region(n=4, **values):
    return plant(lambda rows: region(rows, n).update(values))


def in_row(n=4, **values):
    """Rows 4 and 5 are the images of one source, in train."""
    return plant(lambda rows: rows[n].update(values))


def overwrite(name, data):
    return lambda folder, rows: (folder / name).write_bytes(data)


def every_std(scale, task="quality"):
    return plant(lambda rows: [r.update({f"{task}_std": r[f"{task}_std"] * scale}) for row in rows for r in row["regions"]])


def copied(n, original):
    """The file of row `n` is that of another row: a plain one, or one in the archive."""

    def plant(folder, rows):
        path, _, member = rows[original]["path"].partition("::")
        with zipfile.ZipFile(folder / "Blur_3.zip") as archive:
            (folder / rows[n]["path"]).write_bytes(archive.read(member) if member else (folder / path).read_bytes())

    return plant


def copied_member(n, original):
    def plant(folder, rows):
        with zipfile.ZipFile(folder / "Blur_3.zip") as archive:
            rows[n]["png"] = archive.read(rows[original]["path"].partition("::")[2])

    return plant


def in_tar(folder, rows):
    """Rows 5 and 8, of two splits, are members of one tar archive that hold the same bytes."""
    png = encode_png(np.full((HEIGHT, WIDTH, 3), 99, np.uint8))
    with tarfile.open(folder / "Noise.tar", "w") as archive:
        for n in (5, 8):
            info = tarfile.TarInfo(f"{n}.png")
            info.size = len(png)
            archive.addfile(info, io.BytesIO(png))
            rows[n]["path"] = f"Noise.tar::{n}.png"


REFERENCES = ("reference in several sources", "reference missing")  # planted below
BLACK = encode_png(np.zeros((HEIGHT, WIDTH, 3), np.uint8))
SMALL = encode_png(np.zeros((3, 4, 3), np.uint8))

# what is planted, what is found (sort -> count), a part of the place that is named, images that cannot be used
FAULTS = {
    "an archive is not there": (lambda f, rows: (f / "Blur_3.zip").unlink(), {"archive missing": 1, "image missing": 10}, "Blur_3.zip", 10),
    "an archive is cut short": (overwrite("Blur_3.zip", b"PK\3\4"), {"archive missing": 1, "image missing": 10}, "Blur_3.zip", 10),
    "an archive lacks a member": (in_row(5, path="Blur_3.zip::Blur_3/x.png"), {"image missing": 1}, "row 5, image 'image 5'", 1),
    "a file is not there": (lambda f, rows: (f / "photos/4.png").unlink(), {"image missing": 1}, "row 4, image 'image 4'", 1),
    "neither path nor bytes": (in_row(3, png=b""), {"image missing": 1}, "row 3", 1),
    "an absolute path": (lambda f, rows: rows[4].update(path=str(f / "photos/4.png")), {"path": 1}, "row 4", 1),
    "a path that leaves the folder": (lambda f, rows: rows[4].update(path=f"../{f.name}/photos/4.png"), {"path": 1}, "row 4", 1),
    "a file is no image": (overwrite("photos/4.png", b"<html>"), {"image unreadable": 1}, "row 4", 1),
    "an embedded image is damaged": (plant(lambda rows: rows[3].update(png=rows[3]["png"][:99])), {"image unreadable": 1}, "row 3", 1),
    "an image of another size": (overwrite("photos/4.png", SMALL), {"image of another size": 1}, "row 4", 1),
    "an image that is not the hashed one": (in_row(hash="sha256:00"), {"image changed": 1}, "row 4", 0),
    "an embedded image that is not the hashed one": (in_row(3, hash="sha256:00"), {"image changed": 1}, "row 3", 0),
    "a member that is not the hashed one": (in_row(5, hash="crc32:00:1"), {"image changed": 1}, "row 5", 0),
    "a row of another size": (in_row(4, height=HEIGHT + 1), {"mask": 3, "image of another size": 1}, "region '4-0'", 1),
    "a mask of another size": (in_region(counts=rle.encode(np.ones((5, 5)))["counts"]), {"mask": 1}, "region '4-0'", 1),
    "a mask that is no mask": (in_region(counts="not a mask"), {"mask": 1}, "region '4-0'", 1),
    "no mask": (in_region(counts=None), {"mask": 1}, "region '4-0'", 1),
    "an empty region": (in_region(counts=rle.encode(np.zeros((HEIGHT, WIDTH)))["counts"]), {"empty region": 1}, "region '4-0'", 1),
    "a box of something else": (in_region(box={"left": 0, "top": 0, "width": 1, "height": 1}), {"box or area": 1}, "region '4-0'", 0),
    "a box outside the image": (in_region(box={"left": -1, "top": 0, "width": 3, "height": 7}), {"box or area": 1}, "region '4-0'", 0),
    "a box far outside": (in_region(box={"left": 10**6, "top": 2, "width": 3, "height": 7}), {"box or area": 1}, "region '4-0'", 0),
    "half a box": (in_region(box={"left": None, "top": 2, "width": 3, "height": 7}), {"box or area": 1}, "region '4-0'", 0),
    "an area of something else": (in_region(area=1), {"box or area": 1}, "region '4-0'", 0),
    "a mask under two names": (
        plant(lambda rows: region(rows, 4).update(counts=region(rows, 4, 2)["counts"], box=None, area=None)),
        {"region twice": 1},
        "row 4, image 'image 4', region '4-2': its mask is that of part.parquet row 4, image 'image 4', region '4-0'",
        0,
    ),
    "no regions": (in_row(regions=[]), {"no regions": 1}, "row 4", 1),
    "a score above its scale": (in_region(quality=5.01), {"label out of scale": 1}, "region '4-0'", 0),
    "a score below its scale": (in_region(quality=0.4), {"label out of scale": 1}, "region '4-0'", 0),
    "a score that is no number": (in_region(importance=float("nan")), {"label out of scale": 1}, "region '4-0'", 0),
    "a scale upside down": (in_region(quality_scale={"low": 5, "high": 1, "direction": "higher"}), {"scale": 1}, "region '4-0'", 1),
    "half a scale": (in_region(quality_scale={"low": 5, "high": None, "direction": "higher"}), {"scale": 1}, "region '4-0'", 1),
    "an unknown direction": (in_region(quality_scale={"low": 1, "high": 5, "direction": "up"}), {"scale": 1}, "region '4-0'", 1),
    "a std without its score": (in_region(importance=None, importance_std=0.1), {"std without score": 1}, "region '4-0'", 0),
    "a std below zero": (in_region(quality_std=-0.1), {"std not of the scale": 1}, "region '4-0'", 0),
    "stds of 0 to 100 beside scores of 1 to 5": (every_std(25), {"std not of the scale": 90, "std very large": 1}, "at most", 0),
    "stds of 0 to 1 beside scores of 1 to 5": (
        every_std(0.25),
        {"std very small": 1},
        "quality_std: the median of 90 is 0.15 on 1 to 5",
        0,
    ),
    "the same of importance": (
        every_std(0.25, "importance"),
        {"std very small": 1},
        "importance_std: the median of 90 is 0.025 on 0 to 1",
        0,
    ),
    "scores rescaled and their stds not": (
        plant(lambda rows: [r.update(quality=(r["quality"] - 1) / 4, quality_scale=None) for row in rows for r in row["regions"]]),
        {"std not of the scale": None, "std very large": 1},
        "quality_std: the median of 90 is 0.6 on 0 to 1",
        0,
    ),
    "a source in two splits": (in_row(split="val"), {"source in two splits": 1}, "source 'scene 2' is in val and in train", 1),
    "no test image that can be used": (
        plant(lambda rows: [region(rows, n).update(counts="not a mask") for n in (8, 9, 18, 19, 28, 29)]),
        {"mask": 6, "split empty": 1},
        "test: all of its 6 images must be left out",
        6,
    ),
    "no source": (in_row(source=""), {"source missing": 1}, "row 4", 0),
    "no source, in two splits": (
        plant(lambda rows: [rows[n].update(source=None) for n in (4, 6, 7, 12)]),
        {"source missing": 4},
        "row 7",
        2,
    ),
    "an unknown split": (plant(lambda rows: [r.update(split="dev") for r in rows[4:6]]), {"split": 2}, "'dev'", 2),
    "an image id twice": (in_row(id="image 5"), {"id twice": 1}, "row 5, image 'image 5'", 0),
    "a region id twice": (in_region(id="9-2"), {"id twice": 2}, "row 9, image 'image 9', region '9-2'", 0),
    "no image id": (in_row(id=""), {"id missing": 1}, "row 4", 0),
    "an image id twice, and one of them has a bad mask": (
        plant(lambda rows: [rows[4].update(id="image 5"), region(rows, 4).update(counts="not a mask")]),
        {"id twice": 1, "mask": 1},
        "row 5, image 'image 5'",
        1,
    ),
    "no image id, and a bad mask": (
        plant(lambda rows: [rows[4].update(id=None), region(rows, 4).update(counts="not a mask")]),
        {"id missing": 1, "mask": 1},
        "row 4, image None",
        1,
    ),
    "an empty image id, and an unknown split": (in_row(id="", split="dev"), {"id missing": 1, "split": 1}, "row 4, image ''", 1),
    "no image ids, and two bad masks": (
        plant(lambda rows: [rows[n].update(id=None) or region(rows, n).update(counts="not a mask") for n in (4, 9)]),
        {"id missing": 2, "mask": 2},
        "row 9, image None",
        2,
    ),
    "a null region": (plant(lambda rows: rows[4].update(regions=[None, *rows[4]["regions"]])), {"mask": 1}, "row 4", 1),
    "a null distortion": (in_region(3, distortions=[None]), {"distortion": 1}, "region '3-0': a pair", 0),
    "an image whose name is too long": (in_row(path=f"{'n' * 300}.png"), {"image missing": 1}, "row 4", 1),
    "no region id": (in_region(id=None), {"id missing": 1}, "region 0", 0),
    "an image twice": (plant(lambda rows: rows[3].update(png=rows[0]["png"])), {"image twice": 1}, "also at part.parquet row 0", 0),
    "an image twice in splits": (plant(lambda rows: rows[6].update(png=rows[0]["png"])), {"image twice in splits": 1}, "row 6", 1),
    "a file twice": (copied(4, 1), {"image twice": 1}, "row 4, image 'image 4': also at part.parquet row 1", 0),
    "a file twice in splits": (copied(7, 1), {"image twice in splits": 1}, "row 7, image 'image 7': also at part.parquet row 1", 1),
    "a file that stands in an archive of another split": (copied(7, 5), {"image twice in splits": 1}, "row 7", 1),
    "an embedded image that stands in an archive": (copied_member(3, 5), {"image twice": 1}, "also at part.parquet row 3", 0),
    "members of a tar archive in two splits": (
        in_tar,
        {"image twice in splits": 1},
        "row 8, image 'image 8': also at part.parquet row 5",
        1,
    ),
    "one file in two rows": (in_row(7, path="photos/1.png"), {"image twice in splits": 1}, "row 7", 1),
    "an unknown distortion": (in_region(3, distortions=[{"type": "sharpness", "severity": "minor"}]), {"distortion": 1}, "sharpness", 0),
    "a distortion twice": (in_region(3, distortions=[{"type": "blur", "severity": "minor"}] * 2), {"distortion": 1}, "blur", 0),
    "an unknown severity": (in_region(3, distortions=[{"type": "blur", "severity": "some"}]), {"severity": 1}, "'some'", 0),
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_command_finds_a_planted_fault_and_nothing_else_and_training_goes_on(data, prepare_command, readouts, name):
    """What is left is cut into crops, those of the masks, and every label that is left can be taught by every readout."""
    folder, rows = data
    change, expected, place, unusable = FAULTS[name]
    change(folder, rows)
    status, text, problems = checked(prepare_command, folder, rows, "--images")
    assert {k: told(text)[k][0] for k in told(text)} == {k: KINDS[k][0] for k in expected}
    assert all(count is None or told(text)[kind][1] == count for kind, count in expected.items())
    assert status == any(KINDS[kind][0] == "error" for kind in expected)
    assert place in text
    assert len(problems["unusable"]) + len(problems.get("unusable_rows", ())) == unusable
    assert f"{IMAGES - unusable:,} of 30 images" in text
    left = {"usable": IMAGES - unusable, "left_out": unusable}
    assert left == {"usable": problems["coverage"]["usable"], "left_out": sum(problems["coverage"]["left_out"].values())}
    dataset = Indexed(root=str(folder), exclude=str(folder / "problems.json"), cache="")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        dataset.prepare()
    assert not unusable or any(f"{IMAGES - unusable} of 30 images" in str(w.message) for w in said)
    samples = [dataset.split(s)[i] for s in SPLITS for i in range(len(dataset.split(s)))]
    assert len(samples) == IMAGES - unusable
    by_split = {split: len(dataset.split(split)) for split in SPLITS}
    assert problems["coverage"]["usable_splits"] == by_split
    assert f" can be used ({', '.join(f'{count} {split}' for split, count in by_split.items())})" in text
    assert not any("exclude: " in str(w.message) for w in said)
    batch = Collate(Preprocess(16, (0.5,) * 3, (0.5,) * 3), crop_size=8)(samples)
    assert batch.regions.valid.sum() == sum(len(s.record.regions) for s in samples)
    assert all(torch.equal(sample.boxes(), mask_boxes(sample.masks())) for sample in samples)
    for b, r in batch.regions.valid.nonzero().tolist():
        for readout in readouts:
            for task in readout.tasks:
                label = label_of(batch.labels, b, r, task)
                known = label.distortions is not None if task == "distortion" else not np.isnan(label.value)
                assert (readout.target(task, label) is not None) == known


@pytest.fixture(scope="module")
def readouts():
    llm = LLM_ADAPTERS.build({"plugin": "tiny_causal", **LLM_ADAPTERS.get("tiny_causal").tiny()})
    return [READOUTS.build({"plugin": name, **READOUTS.get(name).tiny()}, Dialogue(llm.tokenizer), llm.width) for name in READOUTS.names()]


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (in_row(7, path="photos/1.png"), "image twice in splits"),
        (copied_member(3, 5), "image twice"),
        (plant(lambda rows: [row.update(hash="sha256:00") for row in (rows[1], rows[7])]), "image twice in splits"),
    ],
)
def test_what_stands_twice_shows_without_reading_where_names_or_checksums_tell(data, prepare_command, change, kind):
    folder, rows = data
    change(folder, rows)
    _, text, _ = checked(prepare_command, folder, rows)
    assert {k: n for k, (_, n) in told(text).items()} == {kind: 1}


@pytest.mark.parametrize(("second", "sources"), [("a.png", ("s0", "s1")), ("b.png", ("s0", "s1")), ("b.png", ("s0", "s0"))])
def test_one_photograph_under_two_sources_crosses_splits(data, second, sources):
    """The versions differ, so only the clean image shows that what is tested was trained on."""
    folder, rows = data
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(BLACK)
    rows[0].update(reference="a.png", source=sources[0], split="train")
    rows[20].update(reference=second, source=sources[1], split="train" if sources[0] == sources[1] else "test")
    report = found(folder, rows)
    kind = "reference in several sources"
    assert report.counts == ({} if sources[0] == sources[1] else {kind: 1})
    assert all("part.parquet row 20" in place and "source 's0' in train" in said for place, said in report.finds[kind])


def test_a_photograph_that_stands_twice_in_an_archive_shows_without_reading(data):
    folder, rows = data
    with zipfile.ZipFile(folder / "Ref.zip", "w") as archive:
        archive.writestr("a.png", BLACK)
        archive.writestr("b.png", BLACK)
    for n, name, split in ((0, "a", "train"), (20, "b", "test"), (24, "c", "train")):
        rows[n].update(reference=f"Ref.zip::{name}.png", source=f"s{n}", split=split)
    report = found(folder, rows, decode=False)
    assert report.counts == {"reference in several sources": 1, "reference missing": 1}
    assert "Ref.zip::c.png is not there" in report.text()


def test_a_damaged_table_and_one_of_another_schema_are_told_and_the_rest_is_read(data):
    folder, rows = data
    (folder / "damaged.parquet").write_bytes(b"PAR1")
    pq.write_table(pa.table({"id": ["a"]}), folder / "other.parquet")
    report = found(folder, rows)
    assert report.counts == {"table": 2}
    assert "damaged.parquet is not a whole Parquet file" in report.text()
    assert "it lacks source (string)" in report.text()
    assert report.images == IMAGES


def test_tables_without_a_row_are_an_error(data, prepare_command):
    status, text, _ = checked(prepare_command, data[0], [])
    assert (status, told(text)) == (1, {"no images": ("error", 1)})
    assert "1 tables: none of them has a row" in text


def test_what_several_tables_share_is_located_in_them(data):
    """Images are numbers until they are told of: tables of several row groups, and one without rows between them."""
    folder, rows = data
    rows[21]["png"] = rows[9]["png"]  # of train, and of test
    rows[22]["id"] = rows[4]["id"]
    region(rows, 22)["counts"] = "not a mask"
    for name, some in (("a", rows[:15]), ("aa", []), ("b", rows[15:])):
        pq.write_table(pa.Table.from_pylist(some, SCHEMA), folder / f"{name}.parquet", row_group_size=4)
    report = validate(folder, Indexed(root=str(folder)).files)
    assert report.finds["image twice in splits"] == [("b.parquet row 6, image 'image 21'", "also at a.parquet row 9, image 'image 9'")]
    assert report.finds["id twice"] == [("b.parquet row 7, image 'image 4'", "")]
    assert (report.unusable, report.rows) == ({"image 21": "image twice in splits"}, {("b.parquet", 7): "mask"})
    assert report.left == {"train": 2}


def test_images_that_are_test_images_of_other_data_are_told_and_left_out(data, prepare_command, tmp_path_factory):
    """By their bytes, wherever they lie, or by their hash where they are not there."""
    folder, rows = data
    other, theirs = tmp_path_factory.mktemp("other"), [{**rows[6], "id": f"their {n}", "source": f"their {n}"} for n in range(4)]
    theirs[0].update(split="test", png=(folder / rows[4]["path"]).read_bytes())  # of ours, a training image
    theirs[1].update(split="test", png=b"", path="lost.png", hash=f"sha256:{hashlib.sha256(rows[6]['png']).hexdigest()}")  # of val
    theirs[2].update(split="test", png=b"", path="lost too.png")
    theirs[3].update(split="train", png=rows[0]["png"])
    pq.write_table(pa.Table.from_pylist(theirs, SCHEMA), other / "theirs.parquet")
    status, text, problems = checked(prepare_command, folder, rows, "--apart", other)
    assert (status, told(text)) == (1, {"image in another test": ("error", 2)})
    assert problems["unusable"] == ["image 4", "image 6"]
    assert f"part.parquet row 4, image 'image 4': also at {other / 'theirs.parquet'} row 0, image 'their 0'" in text
    assert f"compared with 2 of 3 test images of {other} (66.7%); the others are not there, and have no hash" in text
    assert "28 of 30 images" in text


def test_of_copies_in_several_splits_the_one_that_measures_stays(data, prepare_command):
    """All that are trained on are left out, wherever they stand; validation's too where a test image is the same."""
    folder, rows = data
    for n in (3, 6, 12, 27):  # of train, val, train and val; row 0 is of train, row 18 of test
        rows[n]["png"] = rows[0]["png"]
    for n in (24, 21):  # of train, of train
        rows[n]["png"] = rows[15]["png"]
    _, text, problems = checked(prepare_command, folder, rows)
    assert problems["unusable"] == ["image 0", "image 3", "image 12"]
    rows[18]["png"] = rows[0]["png"]
    _, text, problems = checked(prepare_command, folder, rows)
    assert sorted(problems["unusable"]) == sorted(f"image {n}" for n in (0, 3, 6, 12, 27))
    assert "25 of 30 images" in text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (plant(lambda rows: rows[8].update(split="tset")), "row 8, image 'image 8' is in split 'tset', allowed are train, val, test"),
        (plant(lambda rows: [row.update(split="val") for row in rows if row["split"] == "test"]), "has no test image"),
    ],
)
def test_nothing_is_kept_apart_from_tables_whose_test_images_are_unsure(data, prepare_command, tmp_path_factory, change, said):
    folder, rows = data
    other, theirs = tmp_path_factory.mktemp("other"), copy.deepcopy(rows)
    change(other, theirs)
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), folder / "part.parquet")
    pq.write_table(pa.Table.from_pylist(theirs, SCHEMA), other / "theirs.parquet")
    status, text = prepare_command("validate", folder, "--apart", other)
    assert status == 1
    assert said in text
    assert "can be used" not in text


@pytest.mark.parametrize(
    ("share", "kind"),
    [
        (0.25 / 4, "std very small"),  # a quarter of 1 to 5, brought to [0, 1] without its score
        (0.07, ""),
        (0.1, ""),  # the ends of what we expect of people
        (0.25, ""),
        (0.39, ""),
        (0.1 * 4, "std very large"),  # a tenth of 1 to 5, left where its score is on [0, 1]
    ],
)
@pytest.mark.parametrize("scale", [MOS, Scale(0, 1), Scale(0, 100)])
def test_standard_deviations_of_another_scale_show_in_their_median(share, kind, scale):
    for count in (9, 10):
        spreads = Spreads(Report())
        for _ in range(count):
            spreads.add("quality", scale, share * (scale.high - scale.low))
        spreads.finish()
        assert dict(spreads.report.counts) == ({kind: 1} if kind and count == 10 else {})


def test_every_sort_of_problem_is_planted_here_or_in_a_list():
    planted = set().union(*(fault[1] for fault in (*FAULTS.values(), *list_faults.FAULTS.values())))
    assert planted | {"table", "no images", "image in another test", *REFERENCES} == set(KINDS)


def test_the_first_finds_are_named_and_the_others_counted(data):
    folder, rows = data
    for row in rows[:8]:
        row["source"] = None
    text = found(folder, rows).text()
    assert "error: source missing: 8 (an image has no source" in text
    assert text.count("    part.parquet row") == 5
    assert "    and 3 more" in text


def test_training_goes_on_with_what_is_whole(data, capsys):
    """The command's file leaves out exactly what cannot be used."""
    folder, rows = data
    (folder / "photos" / "4.png").write_bytes(b"<html>")
    region(rows, 6)["counts"] = "not a mask"
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), folder / "part.parquet")
    result = prepare.main(["validate", str(folder), "--images", "--json", str(folder / "problems.json")])
    assert json.loads((folder / "problems.json").read_text()) == result
    assert result["unusable"] == ["image 4", "image 6"]
    assert "28 of 30 images (93.3%) can be used" in capsys.readouterr().out
    dataset = Indexed(root=str(folder), exclude=str(folder / "problems.json"))
    with pytest.warns(UserWarning, match=r"excluded by name \(2 images\)"):
        dataset.prepare()
    for split in ("train", "val", "test"):
        samples = dataset.split(split)
        assert all(samples[i].masks().any() for i in range(len(samples)))


def test_labels_that_cannot_be_of_their_scale_do_not_teach_and_are_counted(data):
    """The region's other labels do; a scale that is none makes its image unusable."""
    folder, rows = data
    region(rows, 0).update(quality=5.5)
    region(rows, 0, 1).update(quality_std=9.0)
    region(rows, 0, 2).update(importance=float("nan"))
    region(rows, 1).update(quality_scale={"low": 5, "high": 1, "direction": "higher"})
    report = found(folder, rows, decode=False)
    (folder / "problems.json").write_text(json.dumps(report.as_dict()))
    dataset = Indexed(root=str(folder), exclude=str(folder / "problems.json"))
    assert dataset.rows.unfit == 7  # a score and its std, a std, a nan and its std, and both of the scale that is none
    with pytest.warns(
        UserWarning, match=r"7 labels \(scores or standard deviations that cannot be of their scale, .*\) are taken for unknown"
    ):
        dataset.prepare()
    first, second, third = dataset.split("train")[0].record.regions
    assert (first.quality, first.quality_std, second.quality_std, third.importance) == (None, None, None, None)
    assert None not in (first.importance, second.quality, third.quality, third.quality_std)
    for split in ("train", "val", "test"):
        assert all(dataset.split(split)[i].record.regions for i in range(len(dataset.split(split))))


def test_the_exit_status_says_whether_there_is_an_error(data, root):
    folder, rows = data
    rows[3]["source"] = ""
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), folder / "part.parquet")
    done = subprocess.run(
        [sys.executable, "prepare.py", "validate", str(folder)], cwd=root, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "error: source missing: 1" in done.stdout


def test_warnings_alone_are_no_error(data):
    folder, rows = data
    rows[4]["regions"] = []
    report = found(folder, rows)
    assert report.counts == {"no regions": 1}
    assert report.errors == 0
