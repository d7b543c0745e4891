"""From the download to a trained model, by the commands of docs/data.md: an archive is missing, one is cut short, one image is damaged."""

from __future__ import annotations

import json
import re

import pytest
import torch

import prepare
import train
from datamodules import seagull_100w
from datamodules.datasets.indexed import Indexed
from datamodules.images import ImageError
from datamodules.records import SPLITS
from tests.datamodules.seagull_100w_files import DAMAGED, MISSING, SETTINGS, write_images, write_labels

REFERENCES = 6
IMAGES = REFERENCES * 6 * SETTINGS
DECAYED = "Blur_1/000004"
TINY = [
    "trainer.steps=2",
    "trainer.batch_size=2",
    "trainer.val_every=2",
    "trainer.save_every=2",
    "trainer.log_every=1",
    "trainer.cache_features=false",
    "data.regions=2",
    "model.vision_encoder.image_size=64",
    "model.region_extractor.crop_size=32",
    "model.llm.layers=1",
    "model.llm.width=32",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The download, its tables, and what `validate` found."""
    folder = tmp_path_factory.mktemp("used")
    download, tables, problems = folder / "SEAGULL-100w", folder / "tables", folder / "problems.json"
    write_labels(download, REFERENCES)
    write_images(download, REFERENCES)
    decay(download / "Dist.Images" / "Blur" / "Blur_1.zip", f"{DECAYED}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seagull_100w, "BUCKET", 12000)  # several tables
        found = prepare.main(["index", str(download), str(tables), "--shares", "0.5", "0.2", "0.3"])
    report = prepare.main(["validate", str(tables), "--images", "--json", str(problems)])
    return tables, problems, found, report


def decay(archive, member):
    """A byte of the member's data is another; the archive's directory is whole."""
    packed = bytearray(archive.read_bytes())
    packed[packed.index(member.encode()) + len(member) + 60] ^= 1
    archive.write_bytes(packed)


LEFT_OUT = {f"{name}/{n:06d}" for name in (MISSING, DAMAGED) for n in range(REFERENCES)}
WHOLE = IMAGES - len(LEFT_OUT) - 1
BY_ARCHIVE = (f"{MISSING}.zip is missing ({REFERENCES} images)", f"{DAMAGED}.zip is damaged ({REFERENCES} images)")


def test_what_is_missing_cut_short_or_damaged_is_found(data):
    _, problems, found, report = data
    assert all(said in found["coverage"] for said in (f"{WHOLE + 1} of {IMAGES} images", *BY_ARCHIVE))
    counts = {p["kind"]: p["count"] for p in report["problems"]}
    assert counts == {
        "archive missing": 2, "image missing": len(LEFT_OUT), "image unreadable": 1, "reference missing": REFERENCES
    }  # fmt: skip
    assert set(json.loads(problems.read_text())["unusable"]) == {*LEFT_OUT, DECAYED}
    assert report["coverage"]["usable"] == WHOLE


@pytest.mark.parametrize("excluded", [False, True])
def test_a_page_says_what_was_left_out(data, tmp_path, excluded):
    tables, problems, *_ = data
    options = ["--data", f"exclude={problems}"] if excluded else []
    whole, why = (WHOLE, [f"excluded by name ({IMAGES - WHOLE} images)"]) if excluded else (WHOLE + 1, BY_ARCHIVE)
    with pytest.warns(UserWarning, match=rf"{whole} of {IMAGES} images .* can be used"):
        shown = prepare.main(["show", str(tables), str(tmp_path / "page.html"), "--pictures", "1", *options])
    assert (shown["images"], shown["pictures"]) == (whole, 1)
    page = (tmp_path / "page.html").read_text()
    assert len(re.findall('src="data:image/jpeg;base64,', page)) == 1
    assert all(said in page for said in (f"{whole} of {IMAGES} images", *why))


@pytest.mark.filterwarnings("ignore:.*can be used")
def test_every_image_that_is_not_excluded_can_be_read(data):
    """And of those that are, the damaged one would have stopped the training."""
    tables, problems, *_ = data
    for exclude, unread in ((str(problems), []), ("", [DECAYED])):
        dataset = Indexed(root=str(tables), exclude=exclude, cache="")
        dataset.prepare()
        read, failed = [], []
        for samples in map(dataset.split, SPLITS):
            for i in range(len(samples)):
                name = samples.record(i).id
                try:
                    read.append(samples[i].record.id)
                except ImageError:
                    failed.append(name)
        assert (len(read), failed) == (WHOLE, unread)
        assert not LEFT_OUT & set(read)


def test_a_model_trains_on_what_is_whole_and_the_run_says_on_what(data, tmp_path):
    tables, problems, *_ = data
    where = ["name=run", f"outputs={tmp_path}", "data.plugin=indexed", f"data.root={tables}", f"data.cache={tmp_path / 'cache'}"]
    with pytest.warns(UserWarning, match=rf"{WHOLE} of {IMAGES} images .*left out: excluded by name \({IMAGES - WHOLE} images\)"):
        train.main(["--no-evaluation", "quickstart", *where, f"data.exclude={problems}", *TINY])
    told = json.loads((tmp_path / "run" / "run.json").read_text())["data"]
    assert sum(told["images"].values()) == WHOLE
    assert told["left_out"] == {"excluded by name": IMAGES - WHOLE}
    assert told["made"]["archives"].keys() >= {f"Dist.Images/Exposure/{DAMAGED}.zip"}
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=False)
    assert saved["global_step"] == 2
    assert all(x.isfinite().all() for x in saved["state_dict"].values())
