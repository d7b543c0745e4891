"""docs/data.md says what the code does."""

from __future__ import annotations

import csv
import inspect
import json
import re
import shlex

import numpy as np
import PIL.Image
import pytest

import prepare
import train
from components.prompts import DISTORTION_TYPES, SEVERITIES
from components.registry import ConfigError
from configs.schema import load_config
from datamodules.archives import ImageFiles
from datamodules.datasets.base import DATASETS
from datamodules.datasets.photographs import EMBEDDED, SMALLEST, Photographs
from datamodules.distortions.base import DISTORTIONS
from datamodules.quality_labels.local_similarity import LocalSimilarity
from datamodules.synthesis import Recipe
from datamodules.synthesis_job import Synthesis
from datamodules.tables import REGION, SCHEMA, VERSION
from datamodules.validation import validate


@pytest.fixture
def text(root) -> str:
    return (root / "docs" / "data.md").read_text(encoding="utf-8")


def table(text: str, first: str) -> list[list[str]]:
    """The cells of the table whose first heading is `first`, headings first, without the rule."""
    lines = text[text.index(f"| {first} |") :].split("\n\n")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [rows[0], *rows[2:]]


def test_the_settings_are_those_of_the_classes(text):
    head, *rows = table(text, "type")
    assert tuple(head[3:8]) == SEVERITIES
    expected = []
    for name in DISTORTION_TYPES:
        cls = DISTORTIONS.get(name)
        for variant, strengths in zip(cls.variants, cls.strengths, strict=True):
            expected.append((name, variant, tuple(strengths), variant in cls.seeded))
    assert [(r[0], r[1], tuple(float(n) for n in r[3:8]), bool(r[8])) for r in rows] == expected


def test_the_options_have_their_defaults(text):
    defaults = {n: p.default for n, p in inspect.signature(Photographs).parameters.items()}
    found = {row[0]: json.loads(row[1]) for row in table(text, "option")[1:]}
    assert found == {n: defaults[n] for n in found}
    assert set(vars(Recipe())) <= set(found)
    assert vars(Recipe()) == {n: defaults[n] for n in vars(Recipe())}


def test_the_formula_has_the_labels_numbers(text):
    label = LocalSimilarity()
    formula = re.sub(r"\s+", " ", text[text.index("structure  s = max") : text.index("Colour is lost")])
    floor = f"{label.structure_floor:g}"
    assert f"s = max(0, (2 cov(Y, Y') + {floor}) / (2 dev Y dev Y' + {floor}))" in formula
    assert f"k = (2 dev Y dev Y' + {floor}) / (var Y + var Y' + {floor})" in formula
    assert f"/ {label.luminance_tolerance:g}^2)" in formula
    assert f"lost^2 / {label.colour_lost:g}^2 + added^2 / {label.colour_added:g}^2" in formula
    assert f"s^{label.structure_power:g} k^p" in formula
    assert f"p = {label.contrast_lost:g} where contrast is lost, {label.contrast_gained:g} where it is gained" in formula
    assert f"/ {label.information_noise:g})" in formula
    assert f"{label.window} x {label.window} window" in text
    assert f"over {['one', 'two', 'three', 'four'][label.scales - 1]} scales" in formula


def test_the_photographs_are_the_embedded_ones(text):
    found = {row[0]: (row[1], row[2]) for row in table(text, "photograph")[1:]}
    assert found == {name: (f"{package}/{path}", split) for name, (package, path, split) in EMBEDDED.items()}
    assert f"smaller than {SMALLEST} pixels" in text


def test_the_choices_of_making_have_their_defaults(text):
    defaults = {n: p.default for n, p in inspect.signature(Synthesis).parameters.items()}
    found = {row[0]: json.loads(row[1]) for row in table(text, "choice")[1:]}
    assert found == {n: defaults[n] for n in found}
    assert set(re.findall(r" (\w+)=", " ".join(re.findall(r"^    python prepare.py synthesize (.*)$", text, re.MULTILINE)))) <= set(
        defaults
    )
    told = set(found) | set(re.findall(r"`(\w+)`", text[text.index("| choice |") :]))
    assert {n for n, p in inspect.signature(Synthesis).parameters.items() if p.kind is p.KEYWORD_ONLY} <= told


def test_the_command_is_one_that_the_schema_takes(text):
    (key,) = re.findall(r"python train\.py quickstart name=mine data\.(\w+)=", text)
    assert key in inspect.signature(Photographs).parameters


@pytest.fixture
def my_images(text, tmp_path):
    """The folder of the example: its list as it stands, and images of the names that stand in it."""
    (listed,) = re.findall(r"```csv\n(.*?)```", text, re.DOTALL)
    assert len(listed.splitlines()) <= 20
    images = tmp_path / "my_images"
    for name in {row["image"] for row in csv.DictReader(listed.splitlines())}:
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(len(name)).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(images / name)
    (images / "labels.csv").write_text(listed)
    return images


def command_of(text, images):
    """The command that trains on the example, as it stands but for the folder's place."""
    (command,) = re.findall(r"python train\.py (quickstart name=scored data\.plugin=roi_folder .*)", text)
    experiment, *overrides = shlex.split(command)
    return [experiment, *(o.replace("my_images", str(images)) for o in overrides)]


def test_the_list_of_regions_is_checked_and_shown_by_the_commands_that_stand_there(text, my_images, tmp_path, prepare_command):
    (command,) = re.findall(r"python prepare\.py (validate my_images --data .*)", text)
    status, told = prepare_command(*(word.replace("my_images", str(my_images)) for word in shlex.split(command)))
    assert status == 0
    assert told.splitlines()[:2] == [
        "4 of 4 images (100.0%) can be used (2 train, 1 val, 1 test)",
        "6 of 6 rows of the list (100.0%) can be used",
    ]
    options = ["--data", "quality_scale=[1,5]", f"cache={tmp_path / 'cache'}"]
    assert prepare_command("show", my_images, tmp_path / "page.html", *options)[0] == 0
    assert "4 of 4 images" in (tmp_path / "page.html").read_text()


def test_the_list_of_regions_is_trained_on_by_the_command_that_stands_there(text, my_images, tmp_path):
    small = ["trainer.steps=2", "trainer.batch_size=2", "trainer.val_every=2", "trainer.save_every=2", "model.llm.layers=1"]
    small += ["model.vision_encoder.image_size=64", "model.region_extractor.crop_size=32", "model.llm.width=32"]
    metrics = train.main([*command_of(text, my_images), f"outputs={tmp_path}", f"data.cache={tmp_path / 'cache'}", *small])
    assert metrics["n_images"] == 1
    assert (tmp_path / "scored" / "report.html").is_file()


def test_the_list_of_regions_is_read_as_it_stands(text, my_images, tmp_path):
    experiment, *overrides = command_of(text, my_images)
    node = load_config(experiment, [*overrides, f"data.cache={tmp_path / 'cache'}"]).data
    dataset = DATASETS.build(node)
    dataset.prepare()
    assert [len(dataset.split(s)) for s in ("train", "val", "test")] == [2, 1, 1]
    regions = [r for s in ("train", "val", "test") for i in range(len(dataset.split(s))) for r in dataset.split(s)[i].record.regions]
    assert len(regions) == 6
    assert sorted(r.quality for r in regions) == pytest.approx([(q - 1) / 4 for q in (1.5, 2.1, 2.5, 3.0, 4.2, 4.8)])


def test_the_table_that_is_written_is_read(text, tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/data.md", "exec"), {})
    report = validate(tmp_path / "mine", ImageFiles(tmp_path / "mine"), decode=True)
    assert (report.errors, report.images, report.regions) == (0, 1, 1)


def test_the_columns_are_the_schemas(text):
    section = text[text.index("## The table") : text.index("In memory scores and standard deviations")]
    words = set(re.findall(r"\w+", section))
    assert words >= {*SCHEMA.names, *(f.name for f in REGION), *(f.name for f in REGION.field("quality_scale").type)}
    assert f"version {VERSION} of the schema" in section


def test_the_commands_are_of_the_entry(text):
    commands = re.findall(r"^python prepare\.py (index|validate|show) (.*)$", text, re.MULTILINE)
    assert {c for c, _ in commands} == {"index", "validate", "show"}
    for name, rest in commands:
        with pytest.raises((ConfigError, FileNotFoundError)):  # what is named is not there; the arguments are understood
            prepare.main([name, *shlex.split(rest)])
