"""SEAGULL-3k in the shape that is published of it, small and made up: checked, shown, trained on and measured by its own preset.

Photographs of four data sets, some regions each as masks, three annotations of a region (quality, importance, distortion), means and
standard deviations of opinions, several types of distortion with severities, and clean regions.
"""

from __future__ import annotations

import csv
import json
import re

import numpy as np
import PIL.Image
import pytest

import train
from components import rle
from configs.schema import load_config
from datamodules.datasets.base import DATASETS
from datamodules.findings import KINDS
from datamodules.procedural import dead_leaves
from datamodules.records import SPLITS

SOURCES = ("BID", "KonIQ", "LIVEC", "SPAQ")
IMAGES, REGIONS, HEIGHT, WIDTH = 16, (2, 3, 4), 72, 96
DISTORTIONS = ("severe blur; minor noise", "clean", "trivial compression", "moderate exposure; minor contrast; trivial colorfulness")
SMALL = (
    *("trainer.steps=2", "trainer.batch_size=2", "trainer.val_every=1", "trainer.save_every=1", "trainer.log_every=1"),
    *("model.vision_encoder.image_size=64", "model.region_extractor.crop_size=32", "model.llm.layers=1", "model.llm.width=32"),
)


def region(rng):
    """An ellipse somewhere in the image."""
    y, x = np.ogrid[:HEIGHT, :WIDTH]
    top, left = rng.uniform(20, HEIGHT - 20), rng.uniform(20, WIDTH - 20)
    return ((y - top) / rng.uniform(8, 18)) ** 2 + ((x - left) / rng.uniform(8, 18)) ** 2 <= 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """16 images with 47 regions: 141 annotations, a row each."""
    folder, rng, rows = tmp_path_factory.mktemp("seagull-3k"), np.random.default_rng(0), []
    (folder / "masks").mkdir()
    for n in range(IMAGES):
        name = f"{SOURCES[n % 4]}/{n:04d}.jpg"
        (folder / name).parent.mkdir(exist_ok=True)
        PIL.Image.fromarray(dead_leaves(WIDTH, rng)[:HEIGHT]).save(folder / name, quality=92)
        for r in range(REGIONS[n % 3]):
            mask = region(rng)
            where = {"image": name, "id": r, "group": name, "split": ("train", "train", "val", "test")[n // 4]}
            if r % 2:
                where["mask"] = f"masks/{n:04d}_{r}.png"
                PIL.Image.fromarray(mask).save(folder / where["mask"])
            else:
                where["rle"] = json.dumps(rle.encode(mask))
            for task in ("quality", "importance"):
                rows.append({**where, task: round(rng.uniform(1.5, 4.5), 3), f"{task}_std": round(rng.uniform(0.4, 0.8), 3)})
            rows.append({**where, "distortion": DISTORTIONS[len(rows) // 3 % 4]})
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.fixture
def experiment(folder, tmp_path):
    """The preset in an experiment of its own: the smallest model."""
    path = tmp_path / "experiment.yaml"
    path.write_text("include: [model/seagull_tiny, data/seagull_3k, trainer/cpu]\nname: small\n")
    return [str(path), f"data.root={folder}", f"data.cache={tmp_path / 'cache'}", f"outputs={tmp_path}", *SMALL]


def test_the_second_published_stage_takes_the_preset():
    assert load_config("seagull_7b_stage2").data == load_config("seagull_7b_stage2", ["data.plugin=roi_folder"]).data
    assert load_config("seagull_7b_stage2").data["quality_scale"] == [1, 5]


def test_nothing_is_wrong_with_it(folder, tmp_path, prepare_command):
    options = ["--data", "quality_scale=[1,5]", "importance_scale=[1,5]", f"cache={tmp_path / 'cache'}"]
    status, text = prepare_command("validate", folder, *options)
    assert (status, [kind for kind in KINDS if f": {kind}: " in text]) == (0, [])
    assert "16 of 16 images (100.0%) can be used (8 train, 4 val, 4 test)" in text
    assert "141 of 141 rows of the list (100.0%) can be used" in text
    assert "47 regions; known of them: quality 100.0%, quality_std 100.0%, importance 100.0%, importance_std 100.0%, dist" in text
    status, text = prepare_command("show", folder, tmp_path / "page.html", "--pictures", "4", *options)
    page = (tmp_path / "page.html").read_text()
    assert status == 0
    assert len(re.findall('src="data:image/jpeg;base64,', page)) == 4
    assert len(re.findall('src="data:image/png;base64,', page)) == 7  # scores and deviations, distortions, sizes, numbers
    assert "cannot be shown" not in page


def test_deviations_that_were_not_rescaled_show(folder, tmp_path, prepare_command):
    """As when the scores are told to be of 1 to 100."""
    options = ["--data", "quality_scale=[1,100]", "importance_scale=[1,5]"]
    status, text = prepare_command("validate", folder, *options)
    assert status == 0
    assert "warning: std very small: 1 (" in text
    assert re.search(r"quality_std: the median of 47 is 0\.\d+ on 1 to 100", text)


def test_every_label_is_there_in_every_split(experiment):
    dataset = DATASETS.build(load_config(*experiment[:1], experiment[1:]).data)
    dataset.prepare()
    samples = {s: [dataset.split(s)[i] for i in range(len(dataset.split(s)))] for s in SPLITS}
    assert {s: len(found) for s, found in samples.items()} == {"train": 8, "val": 4, "test": 4}
    regions = [r for found in samples.values() for sample in found for r in sample.record.regions]
    assert len(regions) == 47
    with (dataset.root / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    for task in ("quality", "importance"):
        known = {f"{row['image']}/{row['id']}": (float(row[task]), float(row[f"{task}_std"])) for row in rows if row[task]}
        assert len(known) == 47
        for r in regions:
            score, std = known[r.id]
            assert (getattr(r, task), getattr(r, f"{task}_std")) == pytest.approx(((score - 1) / 4, std / 4))
    assert {len(r.distortions) for r in regions} == {0, 1, 2, 3}
    named = next(r.distortions for r in regions if len(r.distortions) == 2)
    assert sorted(named) == [("blur", "severe"), ("noise", "minor")]
    assert all(sample.masks().any(-1).any(-1).all() for found in samples.values() for sample in found)


def test_two_steps_are_trained_and_the_test_split_is_measured(experiment):
    metrics = train.main(experiment)
    assert metrics["n_regions"] == sum(REGIONS[n % 3] for n in range(12, 16))
    assert all(np.isfinite(metrics[task]["rmse"]) for task in ("quality", "importance"))
    assert 0 <= metrics["distortion"]["macro_f1"] <= 1
