"""Tables at any size: rows read where they are, regions dealt to samples, and what is missing counted, not hidden."""

from __future__ import annotations

import json
import pickle
import re
import tarfile
import zipfile
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from components import rle
from components.registry import ConfigError
from datamodules import tables
from datamodules.datasets.base import DATASETS
from datamodules.datasets.indexed import Indexed
from datamodules.images import ImageError
from datamodules.records import ImageRecord, RegionRecord, Scale, encode_png
from datamodules.tables import SCHEMA, to_row, write_records

RNG = np.random.default_rng(0)
HEIGHT, WIDTH = 12, 17


def region(name: str, column: int, **known) -> RegionRecord:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[2:9, column % WIDTH] = True
    return RegionRecord(name, rle.encode(mask)["counts"], **known)


def image(n: int, split: str = "train", regions: int = 3, **where) -> tuple[ImageRecord, np.ndarray]:
    pixels = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    known = {"quality": 0.25, "quality_std": 0.05, "quality_scale": Scale(1, 5), "distortions": (("noise", "severe"),)}
    listed = tuple(region(f"{n}.{r}", r, **known, semantic="cup") for r in range(regions))
    return ImageRecord(f"image {n}", f"scene {n}", split, HEIGHT, WIDTH, listed, **where), pixels


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Twelve images in two tables of small row groups: embedded, beside the table, in a zip and in a tar archive."""
    monkeypatch.setattr(tables, "GROUP_IMAGES", 2)
    made = {}
    with zipfile.ZipFile(tmp_path / "Blur_3.zip", "w", zipfile.ZIP_DEFLATED) as zipped, tarfile.open(tmp_path / "more.tar", "w") as tarred:
        for n in range(12):
            split = "val" if n == 10 else "test" if n == 11 else "train"
            name = f"{n:06d}.png"
            path = ("", f"photos/{name}", f"Blur_3.zip::Blur_3/{name}", f"more.tar::{name}")[n % 4]
            record, pixels = image(n, split, 1 + n % 5, path=path)
            png = encode_png(pixels)
            if n % 4 == 0:
                record = replace(record, png=png)
            else:
                (tmp_path / "photos").mkdir(exist_ok=True)
                (tmp_path / "photos" / name).write_bytes(png)
            if n % 4 == 2:
                zipped.writestr(f"Blur_3/{name}", png)
            if n % 4 == 3:
                tarred.add(tmp_path / "photos" / name, name)
            made[record.id] = (record, pixels)
    records = [r for r, _ in made.values()]
    write_records(tmp_path / "part-0.parquet", records[:7])
    write_records(tmp_path / "second" / "part-1.parquet", records[7:])
    return tmp_path, made


def prepared(root, **options) -> Indexed:
    dataset = Indexed(root=str(root), **options)
    dataset.prepare()
    return dataset


def test_every_image_is_read_with_what_training_needs(data):
    root, made = data
    samples = prepared(root).split("train")
    assert len(samples) == 10
    for order in (range(10), reversed(range(10))):
        for i in order:
            record, pixels = made[samples[i].record.id]
            wordless = tuple(replace(r, semantic=None) for r in record.regions)
            assert samples[i].record == replace(record, png=b"", regions=wordless)
            assert samples[i].boxes()[0].tolist() == [0, 2, 1, 7]
            np.testing.assert_array_equal(samples[i].image.permute(1, 2, 0).numpy(), pixels)


def test_images_may_be_in_another_folder(data, tmp_path_factory):
    root, made = data
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write_records(elsewhere / "a.parquet", [r for r, _ in made.values()])
    with pytest.warns(UserWarning, match=r"3 of 12 images \(25\.0%\) can be used"):
        assert len(prepared(elsewhere).split("train")) == 3
    assert len(prepared(elsewhere, images=str(root)).split("train")) == 10
    (elsewhere / "data.json").write_text(json.dumps({"images": str(root), "recipe": 1}))
    named = prepared(elsewhere)
    assert len(named.split("train")) == 10
    assert named.describe()["made"]["recipe"] == 1


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_regions_are_dealt_to_samples_and_all_are_seen_once(data, k):
    root, made = data
    dataset = prepared(root, regions=k)
    samples = dataset.split("train")
    train = [r for r, _ in made.values() if r.split == "train"]
    assert len(samples) == sum(-(-len(r.regions) // k) for r in train)
    seen = [[r.id for r in samples[i].record.regions] for i in range(len(samples))]
    assert sorted(r for names in seen for r in names) == sorted(r.id for record in train for r in record.regions)
    assert samples.region_counts().tolist() == [len(s) for s in seen]
    assert max(len(s) for s in seen) <= k
    names = [samples[i].record.id for i in range(len(samples))]
    assert len(set(names)) == len(names)
    if k == 2:  # five regions in three samples: even ones
        assert sorted(len(s) for s, n in zip(seen, names, strict=True) if n.startswith("image 4#")) == [1, 2, 2]
    for other in ("val", "test"):
        (whole,) = [r for r, _ in made.values() if r.split == other]
        assert [r.id for r in dataset.split(other)[0].record.regions] == [r.id for r in whole.regions]


def test_the_dealing_is_the_seeds(data):
    root, _ = data

    def seen(seed):
        samples = prepared(root, regions=2, seed=seed).split("train")
        return [tuple(r.id for r in samples[i].record.regions) for i in range(len(samples))]

    assert seen(0) == seen(0)
    assert seen(0) != seen(1)


def test_images_that_are_not_there_are_left_out_counted_and_reported(data):
    root, _ = data
    (root / "Blur_3.zip").unlink()
    (root / "more.tar").write_bytes(b"<html>")
    (root / "photos" / "000001.png").unlink()
    dataset = Indexed(root=str(root))
    reasons = "Blur_3.zip is missing (3 images); file missing (1 image); more.tar is damaged (3 images)"
    with pytest.warns(UserWarning, match=re.escape(f"5 of 12 images (41.7%) can be used, with 16 regions; left out: {reasons}")):
        dataset.prepare()
    samples = dataset.split("train")
    assert [samples[i].record.id for i in range(len(samples))] == ["image 0", "image 4", "image 5", "image 8", "image 9"]
    assert dataset.describe()["left_out"] == {"Blur_3.zip is missing": 3, "file missing": 1, "more.tar is damaged": 3}
    assert dataset.describe()["images"] == {"train": 5, "val": 0, "test": 0}
    with pytest.raises(ConfigError, match=r"can be used.*Fetch what is missing, or set strict to false"):
        prepared(root, strict=True)


def test_a_member_that_an_archive_lacks_and_an_image_without_regions(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("0.png", encode_png(image(0)[1]))
    write_records(tmp_path / "a.parquet", [image(n, path=f"a.zip::{n}.png")[0] for n in range(3)] + [image(3, regions=0, png=b"x")[0]])
    dataset = Indexed(root=str(tmp_path))
    with pytest.warns(UserWarning, match=r"left out: a\.zip lacks them \(2 images\); without regions \(1 image\)"):
        dataset.prepare()
    assert len(dataset.split("train")) == 1


def test_an_image_that_turns_out_broken_says_how_to_go_on(data):
    root, _ = data
    (root / "photos" / "000001.png").write_bytes(b"\x89PNG, but not much more")
    samples = prepared(root).split("train")
    with pytest.raises(ImageError, match=r"photos/000001\.png .*To train without such images, list them once: python prepare\.py validate"):
        samples[1]
    (root / "photos" / "000005.png").unlink()
    with pytest.raises(ImageError, match=r"photos.000005\.png cannot be read .*list them once"):
        samples[5]


@pytest.mark.parametrize(
    ("fault", "read", "message"),
    [
        ({"counts": "not a mask", "box": None}, lambda sample: sample.masks(), "image 0, region 0.1: malformed RLE"),
        ({"counts": "not a mask", "box": None}, lambda sample: sample.masks_at(4), "image 0, region 0.1: malformed RLE"),
        ({"counts": None, "box": None}, lambda sample: sample.masks_at(4), "image 0, region 0.1: malformed RLE"),
        ({"counts": "not a mask", "box": None}, lambda sample: sample.boxes(), "image 0, region 0.1: malformed RLE"),
        ({"counts": "not a mask", "area": None}, lambda sample: sample.turned(3).areas(), "image 0, region 0.1: malformed RLE"),
        ({"quality_scale": {"low": 5, "high": 1, "direction": "higher"}}, lambda sample: sample, "image 0: a scale goes from a lower"),
    ],
)
def test_a_region_that_turns_out_malformed_is_named_and_says_how_to_go_on(tmp_path, fault, read, message):
    record, pixels = image(0)
    row = to_row(replace(record, png=encode_png(pixels)))
    row["regions"][1].update(fault)
    pq.write_table(pa.Table.from_pylist([row], SCHEMA), tmp_path / "a.parquet")
    samples = prepared(tmp_path).split("train")
    with pytest.raises(ValueError, match=rf"^image {message}.* To train without such images, list them once: python prepare\.py validate"):
        read(samples[0])


def test_an_image_that_turns_out_of_another_size_says_how_to_go_on(data):
    root, _ = data
    (root / "photos" / "000001.png").write_bytes(encode_png(np.zeros((3, 4, 3), np.uint8)))
    with pytest.raises(ValueError, match=r"image image 1 has 4 x 3 pixels .* To train without such images, list them once"):
        prepared(root).split("train")[1]


@pytest.mark.parametrize(
    ("path", "reason"), [("/etc/a.png", "path outside the folder"), ("../a.zip::x.png", r"\.\./a\.zip is outside the folder")]
)
def test_paths_outside_the_folder_are_left_out(data, path, reason):
    root, made = data
    outside = [replace(r, path=path, png=b"", hash="") if n == 0 else r for n, (r, _) in enumerate(made.values())]
    write_records(root / "part-0.parquet", outside[:7])
    with pytest.warns(UserWarning, match=rf"left out: {reason} \(1 image\)"):
        prepared(root)


def test_what_is_excluded_by_name(data):
    root, _ = data
    (root / "problems.json").write_text(json.dumps({"unusable": ["image 1", "image 11"]}))
    dataset = Indexed(root=str(root), exclude=str(root / "problems.json"))
    with pytest.warns(UserWarning, match=r"excluded by name \(2 images\)"):
        dataset.prepare()
    assert [len(dataset.split(s)) for s in ("train", "val", "test")] == [9, 1, 0]
    for bad in ("[]", '{"unusable": 3}'):
        (root / "problems.json").write_text(bad)
        with pytest.raises(ConfigError, match=r"exclude: .*problems\.json is no file with a list `unusable`"):
            prepared(root, exclude=str(root / "problems.json"))
    for unfit, said in [
        ("{", r"problems\.json is no JSON \("),
        ('{"unusable": [null, "1.png"]}', r"`unusable` of .*problems\.json is a list of images' ids, each a text; got null"),
        ('{"unusable": [1]}', r"`unusable` of .*problems\.json .* got 1"),
        ('{"unusable": [], "unusable_rows": ["1.png"]}', r"`unusable_rows` of .*problems\.json is a list of \[table, number"),
    ]:
        (root / "problems.json").write_text(unfit)
        with pytest.raises(ConfigError, match=f"exclude: {said}|exclude: .*{said}"):
            prepared(root, exclude=str(root / "problems.json"))
    with pytest.raises(ConfigError, match=r"exclude: nowhere\.json is no file with a list"):
        prepared(root, exclude="nowhere.json")


def test_what_is_excluded_by_its_row_and_what_matches_nothing_is_said(data):
    root, _ = data
    rows = [["part-0.parquet", 1], ["second/part-1.parquet", 0], ["part-0.parquet", 7], ["other.parquet", 0]]
    (root / "mine.json").write_text(json.dumps({"unusable": ["image 2", "image 2.png"], "unusable_rows": rows}))
    dataset = Indexed(root=str(root), exclude=str(root / "mine.json"))
    with pytest.warns(UserWarning, match="exclude: ") as said:
        dataset.prepare()
    left = {dataset.split("train")[i].record.id for i in range(len(dataset.split("train")))}
    assert {f"image {n}" for n in range(10)} - left == {"image 1", "image 2", "image 7"}
    (told,) = [str(w.message) for w in said if "exclude: " in str(w.message)]
    names = f"'image 2.png', 'row 7 of {root / 'part-0.parquet'}', 'row 0 of {root / 'other.parquet'}'"
    assert f"exclude: 3 of what {root / 'mine.json'} leaves out (" in told
    assert all(name in told for name in names.split(", "))


def test_a_source_in_two_splits_is_refused(tmp_path):
    write_records(tmp_path / "a.parquet", [image(0, png=b"x")[0], replace(image(1, "test", png=b"x")[0], source="scene 0")])
    with pytest.raises(ConfigError, match=r"source 'scene 0' is in the splits t.* and t.*: what is tested would have been trained on"):
        prepared(tmp_path)


def test_a_row_of_no_split_is_refused(tmp_path):
    write_records(tmp_path / "a.parquet", [image(0, "holdout", png=b"x")[0]])
    with pytest.raises(ConfigError, match="an image of source 'scene 0' is in split 'holdout', allowed are train, val, test"):
        prepared(tmp_path)


def test_where_there_is_nothing(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere is no folder: `python prepare\.py index`"):
        prepared(tmp_path / "nowhere")
    (tmp_path / ".draft.parquet").touch()
    with pytest.raises(ConfigError, match="holds no Parquet file"):
        prepared(tmp_path)
    write_records(tmp_path / "a.parquet", [image(0, path="a.zip::0.png")[0]])
    with pytest.raises(ConfigError, match=r"no image can be used: 0 of 1 images .*Is .* the folder of the images\?"):
        prepared(tmp_path)


def test_options_are_checked():
    with pytest.raises(ConfigError, match="a number of regions for each training sample, 0 for all; got -1"):
        Indexed(root="x", regions=-1)
    with pytest.raises(ConfigError, match="Indexed needs a value for root"):
        DATASETS.part({"plugin": "indexed"})


def test_the_fingerprint_is_the_tables(data):
    root, made = data
    before = prepared(root).describe()["fingerprint"]
    assert prepared(root).describe()["fingerprint"] == before
    records = [r for r, _ in made.values()]
    write_records(root / "part-0.parquet", [replace(records[0], source="another"), *records[1:7]])
    assert prepared(root).describe()["fingerprint"] != before


def test_nothing_is_open_until_a_sample_is_asked_for_and_nothing_open_travels(data):
    root, _ = data
    samples = prepared(root).split("train")
    assert not samples.tables._open
    first = samples[0]
    other = pickle.loads(pickle.dumps(samples))
    assert not other.tables._open
    assert torch.equal(other[0].image, first.image)


@pytest.mark.parametrize(
    ("named", "most"), [([None, (), ("blur",)], 1), ([("blur", "noise", "contrast"), None, ()], 3), ([None, None, ()], 0)]
)
def test_how_many_distortions_a_label_names(tmp_path, named, most):
    labels = [None if types is None else tuple((t, "minor") for t in types) for types in named]
    for n, known in enumerate(labels):
        record, pixels = image(n, regions=1)
        record = replace(record, regions=(region("r", n, distortions=known), region("s", n)), png=encode_png(pixels))
        write_records(tmp_path / f"{n}.parquet", [record])
    dataset = Indexed(root=str(tmp_path))
    assert dataset.most_types == most
