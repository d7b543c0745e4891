"""eval.py over several entries, on runs written by hand: what is printed and written, and where pictures come from."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import eval as entry
from components.registry import ConfigError
from configs.schema import load_config, to_yaml
from datamodules.datasets.base import DATASETS
from datamodules.datasets.photographs import Photographs
from datamodules.records import encode_png
from evaluation.place import COMPARISON
from evaluation.splits import draw_splits
from lightning_modules.runs import Run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two measured runs on the same cached images, the second noisier, and a CSV about their regions."""
    folder = tmp_path_factory.mktemp("runs")
    options = ["data.test=4", "data.size=64", "data.train=0", "data.val=0", "data.workers=0", f"data.cache={folder / 'cache'}"]
    config = load_config("quickstart", ["name=run", *options])
    dataset = DATASETS.build(config.data, where="data")
    dataset.prepare()
    rows = _rows(dataset)
    rng = np.random.default_rng(0)
    for name, noise in (("good", 0.05), ("poor", 2.0)):
        run = folder / name
        run.mkdir()
        (run / "config.yaml").write_text(to_yaml(config))
        (run / "run.json").write_text(json.dumps({"data": dataset.describe(), "parts": {"llm": {"parameters": 12}}}))
        rows.assign(quality_pred=rows["quality"] + noise * rng.normal(size=len(rows))).to_parquet(run / "scores.parquet")
    theirs = rows[["image", "id"]].rename(columns={"id": "region"}).assign(score=100 * rows["quality"])
    theirs.to_csv(folder / "theirs.csv", index=False)
    return folder


def _rows(dataset):
    samples = dataset.split("test")
    records = [samples[i].record for i in range(len(samples))]
    return pd.DataFrame(
        {
            "id": region.id,
            "image": record.id,
            "source": record.source,
            "area": 0.1,
            "quality": region.quality,
            "importance": region.importance,
            "types": ";".join(t for t, _ in region.distortions),
            "severities": ";".join(s for _, s in region.distortions),
            "quality_parsed": True,
        }
        for record in records
        for region in record.regions
    )


def test_runs_and_a_file_are_compared_on_the_same_regions(runs, tmp_path, capsys):
    result = entry.main([str(runs / n) for n in ("good", "poor", "theirs.csv")] + ["--out", str(tmp_path)])
    assert list(result["models"]) == ["good", "poor", "theirs"]
    assert result["models"]["theirs"]["quality"]["srcc"] == pytest.approx(1)
    assert result["models"]["good"]["quality"]["srcc"] > result["models"]["poor"]["quality"]["srcc"]
    assert result["models"]["good"]["parameters"] == 12
    said = capsys.readouterr().out
    assert "judged are those that every model answered that was asked: quality" in said
    assert "no gallery" not in said
    assert said.count("* is the best of a column") == 1
    (hint,) = [x for x in said.splitlines() if "of equal size" in x and "within images" not in x]
    assert hint.startswith("note: quality: intervals are hints")
    assert {p.name for p in tmp_path.iterdir()} > {"comparison.json", "comparison.md", "comparison.tex", "comparison.csv", "report.html"}
    assert "Where they disagree" in (tmp_path / "report.html").read_text()


def test_no_data_are_made_for_the_sake_of_pictures(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Photographs, "make_pair", lambda *_: pytest.fail("a sample is made"))
    moved = [shutil.copytree(runs / n, tmp_path / n) for n in ("good", "poor")]
    for run in moved:
        text = (run / "config.yaml").read_text()
        (run / "config.yaml").write_text(text.replace(str(runs / "cache"), str(tmp_path / "empty")))
    entry.compare_runs(moved, tmp_path / "out", draws=5)
    assert f"no gallery of disagreements, since {tmp_path / 'empty'} has not the test images" in capsys.readouterr().out
    assert "There is no gallery of disagreements" in (tmp_path / "out" / "report.html").read_text()


def test_pictures_of_other_data_are_never_shown(runs, tmp_path):
    """Names of regions are the same whatever the images: the cache's pictures count by the fingerprint of what was measured."""
    run = shutil.copytree(runs / "good", tmp_path / "good")
    told = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**told, "evaluation": {"data": {**told["data"], "fingerprint": "another"}}}))
    images, why = entry._kept_pictures(run)
    assert images is None
    assert "has not the test images" in why


def test_a_run_without_a_configuration_is_compared_without_pictures(runs, tmp_path, capsys):
    run = shutil.copytree(runs / "good", tmp_path / "bare")
    (run / "config.yaml").unlink()
    entry.compare_runs([run, runs / "poor"], tmp_path / "out", draws=5)
    assert f"no gallery of disagreements, since the data of {run} cannot be read" in capsys.readouterr().out


def test_runs_on_other_data_stand_in_columns_of_their_own(runs, tmp_path, capsys):
    run = shutil.copytree(runs / "good", tmp_path / "good_elsewhere")
    rows = pd.read_parquet(run / "scores.parquet")
    rows.assign(id="mine-" + rows["id"]).to_parquet(run / "scores.parquet")
    told = json.loads((run / "run.json").read_text())
    other = {"dataset": "roi_folder", "root": "data/mine", "fingerprint": "another"}
    (run / "run.json").write_text(json.dumps({**told, "evaluation": {"data": other}, "measured_from": "good"}))
    result = entry.compare_runs([runs / "good", runs / "poor", run], tmp_path / "out", draws=5, absent={"lost": "killed"})
    assert list(result["datasets"]) == ["photographs", "roi_folder mine"]
    said = capsys.readouterr().out
    assert said.count("lost (killed)") == 1
    assert "note: roi_folder mine: poor: not measured on it\n" in said
    assert "note: photographs: quality: no whole-image control for good, poor, since" in said
    assert "- missing: lost (killed)\n" in (tmp_path / "out" / "across.md").read_text()
    assert set(result["models"]["good"]) == {"trained_on", "photographs", "roi_folder mine"}
    assert "each stands in the column of its own" in said
    (tmp_path / "splits.json").write_text(draw_splits("abcd").to_json())
    with pytest.raises(ValueError, match="are splits of one data set, and the entries were measured on 2"):
        entry.compare_runs([runs / "good", run], tmp_path / "halves", splits=tmp_path / "splits.json")


def test_a_file_stands_in_the_columns_of_each_data_set_that_it_has_rows_of(runs, tmp_path, capsys):
    """The first run's data come first, and the file has rows of the second's alone; then of both."""
    run = shutil.copytree(runs / "good", tmp_path / "good_elsewhere")
    rows = pd.read_parquet(run / "scores.parquet")
    rows.assign(id="mine-" + rows["id"], image="mine-" + rows["image"]).to_parquet(run / "scores.parquet")
    told = json.loads((run / "run.json").read_text())
    other = {"dataset": "roi_folder", "root": "data/mine", "fingerprint": "another"}
    (run / "run.json").write_text(json.dumps({**told, "evaluation": {"data": other}, "measured_from": "good"}))
    here = pd.read_csv(runs / "theirs.csv")
    there = here.assign(image="mine-" + here["image"], region="mine-" + here["region"])
    for name, own, data in (("one", there, {"roi_folder mine"}), ("two", pd.concat([here, there]), {"photographs", "roi_folder mine"})):
        own.to_csv(tmp_path / f"{name}.csv", index=False)
        result = entry.compare_runs([tmp_path / f"{name}.csv", runs / "good", run], tmp_path / "out", draws=5, overwrite=True)
        assert set(result["models"][name]) == {"trained_on", *data}
        assert all(result["models"][name][d]["quality"]["srcc"] == pytest.approx(1) for d in data)
        assert (tmp_path / "out" / "roi_folder_mine" / "report.html").exists()
    there[:-10].to_csv(tmp_path / "few.csv", index=False)
    with pytest.raises(ValueError, match=r"roi_folder mine: nothing is left to compare. few is left out of quality"):
        entry.compare_runs([tmp_path / "few.csv", runs / "good", run], tmp_path / "few", draws=5)


def test_a_first_run_on_fewer_regions_is_left_out_and_the_others_are_shown(runs, tmp_path, capsys):
    """Its pictures are shown where they are of regions that are compared."""
    few = shutil.copytree(runs / "good", tmp_path / "few")
    rows = pd.read_parquet(few / "scores.parquet")
    rows[: len(rows) // 2].to_parquet(few / "scores.parquet")
    result = entry.compare_runs([few, runs / "good", runs / "poor"], tmp_path / "out", draws=5)
    assert "quality" not in result["models"]["few"]
    assert result["judged"]["quality"] == len(rows)
    assert "few is left out of quality" in capsys.readouterr().out
    assert "Where they disagree" in (tmp_path / "out" / "report.html").read_text()


def test_a_comparison_of_other_entries_is_replaced_only_when_that_is_asked_for(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("evaluation.comparison.write_page", lambda *_: None)
    monkeypatch.chdir(runs)
    out, two = tmp_path / "out", [Path("good"), Path("poor")]
    entry.compare_runs(two, out, draws=5)
    entry.compare_runs([runs / "poor", runs / "good"], out, draws=5)  # the same, in other words
    kept = (out / "comparison.json").read_text()
    with pytest.raises(FileExistsError, match=r"out holds a comparison of other entries \(seen from there: \S+/good, \S+/poor\): choose "):
        entry.compare_runs([*two, runs / "theirs.csv"], out, draws=5)
    (tmp_path / "splits.json").write_text(draw_splits("abcd").to_json())
    with pytest.raises(FileExistsError, match="holds a comparison of these entries with other splits: choose another"):
        entry.compare_runs(two, out, draws=5, splits=tmp_path / "splits.json")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "across.json").write_text("{}")
    with pytest.raises(FileExistsError, match=r"does not say of which entries \(across.json\): choose another folder .* with --overwrite"):
        entry.main([*map(str, two), "--out", str(tmp_path / "old")])
    with pytest.raises(FileExistsError, match=r"good is the folder of a run \(it has a config.yaml\): choose another"):
        entry.compare_runs(two, runs / "good", draws=5, overwrite=True)
    with pytest.raises(FileExistsError, match=r"theirs.csv is a file, and a comparison needs a folder"):
        entry.compare_runs(two, runs / "theirs.csv", draws=5)
    assert (out / "comparison.json").read_text() == kept
    entry.main([*map(str, two), "theirs.csv", "--out", str(out), "--overwrite"])
    assert "theirs" in json.loads((out / "comparison.json").read_text())["models"]
    entry.main([*map(str, two), "--out", str(tmp_path / "old"), "--overwrite"])
    assert {p.name for p in (tmp_path / "old").iterdir()} == {*COMPARISON} - {"report.html", "splits.json"}


def test_other_data_are_given_as_overrides_of_the_data(runs, tmp_path, capsys):
    with pytest.raises(ConfigError, match=r"--on seed=3: only data can be another"):
        entry._on_other_data(Run(runs / "good"), ["data.root=mine", "seed=3"])
    with pytest.raises(SystemExit):
        entry.main([str(runs / "good"), "--on", "data.root=mine"])
    assert "needs --out" in capsys.readouterr().err


@pytest.fixture(params=["roi_folder", "photographs"])
def dealt(request, tmp_path):
    """Ten pictures of ten scenes that name no splits, as overrides; and a run that was trained on them."""
    folder = tmp_path / "mine"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (10, 20, 30, 3), dtype=np.uint8)
    for n in range(10):
        (folder / f"{n}.png").write_bytes(encode_png(pixels[n]))
    (folder / "labels.csv").write_text("image,id,box,quality\n" + "".join(f"{n}.png,a,2 2 9 9,0.{n}\n" for n in range(10)))
    options = [f"data.plugin={request.param}", f"data.root={folder}", f"data.cache={tmp_path / 'cache'}"]
    config = load_config("quickstart", ["name=run", *options])
    dataset = DATASETS.build(config.data, where="data")
    assert len(dataset.pictures("test")) == 2 * 2  # of each, where it lies and what it is
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(to_yaml(config))
    (tmp_path / "run" / "run.json").write_text(json.dumps({"data": dataset.describe()}))
    return folder, options


def on(run, options):
    """What would be tested: how many pictures."""
    return len(DATASETS.build(entry._on_other_data(Run(run), options).data, where="data").pictures("test")) / 2


def test_all_of_other_data_that_name_no_splits_are_tested(dealt, runs, capsys):
    _, options = dealt
    assert on(runs / "good", options) == 10
    assert "note: all of these data are tested, for they name no splits and" in capsys.readouterr().out
    assert on(runs / "good", [*options, "data.only_test=false"]) == 2
    assert not capsys.readouterr().out


def test_data_that_a_run_was_trained_on_keep_their_splits(dealt, tmp_path, capsys):
    """Under whatever path, with whatever seed, and for a run that began with that run's weights."""
    folder, options = dealt
    later = tmp_path / "later"
    later.mkdir()
    config = load_config("quickstart", ["name=later", "data.cache=''", f"start_from={tmp_path / 'run'}"])
    (later / "config.yaml").write_text(to_yaml(config))
    (later / "run.json").write_text(json.dumps({"data": DATASETS.build(config.data).describe()}))
    moved = shutil.copytree(folder, tmp_path / "moved")
    for run, root, more in ((tmp_path / "run", folder, "data.seed=5"), (later, moved, "data.only_test=true")):
        assert on(run, [*options, f"data.root={root}"]) == 2
        assert f"note: these data name no splits, and {run} was trained on some of them" in capsys.readouterr().out
        with pytest.raises(ConfigError, match=rf"{run} was trained, or its checkpoint chosen, on pictures that would be tested"):
            on(run, [*options, f"data.root={root}", more])


def test_where_it_cannot_be_told_what_a_run_has_seen_no_more_is_tested_than_training_holds_out(dealt, tmp_path, capsys):
    folder, options = dealt
    there = [*options, f"data.root={shutil.move(folder, tmp_path / 'there')}"]
    assert on(tmp_path / "run", there) == 2
    said = f"note: these data name no splits, and whether {tmp_path / 'run'} has seen any of them cannot be told"
    assert said in capsys.readouterr().out
    assert on(tmp_path / "run", [*there, "data.only_test=true"]) == 10
    assert "note: of the data that are tested now, whether" in capsys.readouterr().out


def test_a_comparison_without_a_run_is_refused(runs, tmp_path):
    with pytest.raises(ValueError, match=r"none of \['.*theirs.csv', '.*theirs.csv'\] is a run's folder"):
        entry.compare_runs([runs / "theirs.csv", runs / "theirs.csv"], tmp_path)


def test_an_entry_is_given_once(runs, tmp_path):
    with pytest.raises(ValueError, match="good is given twice: each run or file is compared once"):
        entry.compare_runs([runs / "good", runs / "poor", runs / "poor" / ".." / "good"], tmp_path)


def test_an_entry_that_does_not_exist_is_told_with_its_neighbours(runs, monkeypatch):
    monkeypatch.chdir(runs)
    for given, near in (("god", "good"), ("their.csv", "theirs.csv"), ("theirs", "theirs.csv")):
        said = rf"{given} does not exist \(looked for {runs}/{given}\). Did you mean {near}\? {runs} holds the runs and CSV files: "
        with pytest.raises(FileNotFoundError, match=said + r"good, poor, theirs.csv$"):
            entry.main(["poor", given])
    with pytest.raises(FileNotFoundError, match=r"god does not exist .* Did you mean good\?"):
        entry.main(["god"])
    with pytest.raises(FileNotFoundError, match=r"old/run/god does not exist .*, nor does old. .* holds the folders: cache, good, poor"):
        entry.main(["good", "old/run/god"])
    with pytest.raises(FileNotFoundError, match=r"good/split.json does not exist .* holds the JSON files: run.json"):
        entry.main(["good", "poor", "--splits", "good/split.json"])


@pytest.mark.parametrize("arguments", [["theirs.csv"], ["outputs/run", "--out", "elsewhere"]])
def test_one_entry_is_no_comparison(arguments, capsys):
    with pytest.raises(SystemExit):
        entry.main(arguments)
    assert "give at least two entries" in capsys.readouterr().err


def test_a_comparison_measures_nothing(capsys):
    with pytest.raises(SystemExit):
        entry.main(["outputs/a", "outputs/b", "--accelerator", "cpu"])
    assert "--accelerator is for measuring one run" in capsys.readouterr().err
