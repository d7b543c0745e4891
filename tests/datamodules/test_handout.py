"""Regions for other people's systems: what is written, what goes on after a kill, what is refused, and that a filled table is an entry."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import prepare
from components import rle
from configs.schema import load_config, to_yaml
from datamodules import handout
from datamodules.alone import LOCK, alone
from datamodules.datasets.base import DATASETS
from datamodules.handout import TABLE, hand_out
from datamodules.records import ImageRecord, RegionRecord
from datamodules.samples import RoiSample
from evaluation.entries import read_csv

ABOUT = {"dataset": "drawn", "seed": 0}


class Drawn:
    """Three images of two regions each, with names that no file can have."""

    def __len__(self):
        return 3

    def __getitem__(self, n):
        image = torch.from_numpy(np.random.default_rng(n).integers(0, 256, (3, 20, 30), dtype=np.uint8))
        regions = tuple(RegionRecord(f"{n}/ä,{r}", rle.encode(self.mask(n, r))["counts"], quality=0.5) for r in range(2))
        return RoiSample(image, ImageRecord(f"a/b,{n}", "a", "test", 20, 30, regions, b""))

    def mask(self, n, r):
        mask = np.zeros((20, 30), bool)
        mask[2 + n : 9 + n, 3 + r : 20] = True
        mask[4 + n, 5 : 8 + r] = False
        return mask


def test_what_is_written_is_what_models_of_this_project_see(tmp_path):
    assert hand_out(Drawn(), ABOUT, tmp_path / "out") == {"images": 3, "regions": 6}
    table = pd.read_csv(tmp_path / "out" / TABLE)
    assert table["score"].isna().all()
    assert not {"quality", "importance", "types"} & set(table)
    for row in table.itertuples():
        n, r = divmod(row.Index, 2)
        assert (row.image, row.region) == (f"a/b,{n}", f"{n}/ä,{r}")
        assert (row.left, row.top, row.width, row.height) == (3 + r, 2 + n, 17 - r, 7)
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / row.mask)), Drawn().mask(n, r) * 255)
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / row.picture)), Drawn()[n].image.permute(1, 2, 0))


def test_whoever_is_killed_goes_on(tmp_path, monkeypatch):
    write, there = handout._write, []

    def stopped(path, data):
        if path.name == "000001.png":
            raise KeyboardInterrupt
        write(path, data)

    monkeypatch.setattr(handout, "_write", stopped)
    with pytest.raises(KeyboardInterrupt):
        hand_out(Drawn(), ABOUT, tmp_path)
    assert not (tmp_path / TABLE).exists()
    (tmp_path / ".000001.png.1").write_bytes(b"half")  # as a kill in the midst of writing leaves it
    monkeypatch.setattr(handout, "_write", lambda path, data: (there.append(path.name), write(path, data)))
    hand_out(Drawn(), ABOUT, tmp_path)
    assert "000000.png" not in there  # it was whole
    assert {"000001.png", "000001_001.png", "000002.png"} < set(there)
    assert len(pd.read_csv(tmp_path / TABLE)) == 6
    assert [p.name for p in tmp_path.rglob(".*")] == [LOCK]


def test_two_do_not_write_at_once(tmp_path):
    with alone(tmp_path), pytest.raises(FileExistsError, match="another run is writing into"):
        hand_out(Drawn(), ABOUT, tmp_path)


def test_what_is_in_the_way_is_kept(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="mine holds something else than regions that were begun here"):
        hand_out(Drawn(), ABOUT, tmp_path / "mine")
    with pytest.raises(FileExistsError, match=r"a.txt is a file, and a folder is wanted"):
        hand_out(Drawn(), ABOUT, tmp_path / "mine" / "a.txt")
    hand_out(Drawn(), ABOUT, tmp_path / "out")
    with pytest.raises(FileExistsError, match=r"regions.csv is there already, and scores may stand in it"):
        hand_out(Drawn(), ABOUT, tmp_path / "out")
    (tmp_path / "out" / TABLE).unlink()
    with pytest.raises(FileExistsError, match="out was begun with the regions of other data"):
        hand_out(Drawn(), {**ABOUT, "seed": 1}, tmp_path / "out")


def test_a_filled_table_of_a_run_is_an_entry_of_a_comparison(tmp_path, capsys):
    options = ["data.test=1", "data.size=64", "data.train=0", "data.val=0", "data.workers=0", f"data.cache={tmp_path / 'cache'}"]
    config = load_config("quickstart", ["name=run", *options])
    dataset = DATASETS.build(config.data, where="data")
    dataset.prepare()
    run, out = tmp_path / "run", tmp_path / "regions"
    run.mkdir()
    (run / "config.yaml").write_text(to_yaml(config))
    (run / "run.json").write_text(json.dumps({"data": dataset.describe()}))
    (sample,) = (dataset.split("test")[n] for n in range(len(dataset.split("test"))))
    assert prepare.main(["regions", str(run), str(out)])["regions"] == len(sample.record.regions)
    assert f"fill the column score of {out / TABLE}" in capsys.readouterr().out
    table = pd.read_csv(out / TABLE, dtype={"image": str, "region": str})
    scored = [np.asarray(Image.open(out / row.picture))[np.asarray(Image.open(out / row.mask)) > 0].mean() for row in table.itertuples()]
    table.assign(score=scored).to_csv(tmp_path / "brightness.csv", index=False)
    known = pd.DataFrame({"id": [r.id for r in sample.record.regions], "image": sample.record.id, "quality": 0.5})
    (theirs,) = read_csv(tmp_path / "brightness.csv", {"photographs": known}).values()
    assert theirs.notes == ()
    np.testing.assert_allclose(theirs.table["quality_pred"], scored)
    (run / "run.json").write_text(json.dumps({"data": {**dataset.describe(), "seed": 7}}))
    with pytest.raises(ValueError, match=r"are not those that .*run was measured on.*\(differing: seed\)"):
        prepare.main(["regions", str(run), str(tmp_path / "other")])
