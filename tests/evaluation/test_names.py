import json
from dataclasses import replace

import pytest

from evaluation import comparison
from evaluation.across import compare_across
from evaluation.entries import Entry, read_csv, read_run
from evaluation.names import tell_apart

PHOTOGRAPHS, FOLDER = {"dataset": "photographs"}, {"dataset": "roi_folder", "root": "data/mine"}


@pytest.fixture
def runs(answers, tmp_path):
    """Two runs named mfe, trained on different data and measured on these; the first also on the second's, the newest record last."""
    other = answers.assign(quality=1 - answers["quality"])
    for place, rows, record in (
        ("old/mfe", answers, {"data": PHOTOGRAPHS, "seed": 0}),
        ("new/mfe", other, {"data": FOLDER, "seed": 0}),
        ("new/on_mine", other, {"data": PHOTOGRAPHS, "seed": 0, "measured_from": "old/mfe", "evaluation": {"data": FOLDER}}),
    ):
        (tmp_path / place).mkdir(parents=True)
        rows.to_parquet(tmp_path / place / "scores.parquet")
        (tmp_path / place / "run.json").write_text(json.dumps(record))
    return tmp_path


def names(groups):
    return {data: [e.name for e in own] for data, own in groups.items()}


def test_two_models_of_one_name_are_two_rows(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(comparison, "write_page", lambda *_: None)
    old, new, moved = (read_run(runs / place) for place in ("old/mfe", "new/mfe", "new/on_mine"))
    result = compare_across({"photographs": [old], "mine": [new]}, tmp_path / "out", draws=2)
    assert {n: set(m) for n, m in result["models"].items()} == {
        "mfe (old)": {"trained_on", "photographs"},
        "mfe (new)": {"trained_on", "mine"},
    }
    assert [m["trained_on"] for m in result["models"].values()] == ["photographs", "roi_folder mine"]
    assert names(tell_apart({"photographs": [old], "mine": [new, moved]})) == {
        "photographs": ["mfe (old)"],
        "mine": ["mfe (new)", "mfe (old)"],
    }
    assert names(tell_apart({"photographs": [old], "mine": [moved]})) == {"photographs": ["mfe"], "mine": ["mfe"]}


def test_an_older_measurement_does_not_say_which_folder_its_model_lies_in(runs):
    record = json.loads((runs / "new/on_mine/run.json").read_text())
    (runs / "new/on_mine/run.json").write_text(json.dumps({**record, "measured_from": "mfe"}))
    old, new, moved = (read_run(runs / place) for place in ("old/mfe", "new/mfe", "new/on_mine"))
    assert (moved.name, moved.origin) == ("mfe", "")
    assert names(tell_apart({"mine": [moved, new], "photographs": [old]}))["mine"] == ["mfe (old)", "mfe (new)"]
    with pytest.raises(ValueError, match=r"2 different models are named 'mfe' \(of an unknown folder, new\).*: rename a folder or a file"):
        tell_apart({"mine": [moved, new]})


def test_models_whose_folders_have_one_name_too_are_refused(runs):
    old, new = read_run(runs / "old/mfe"), read_run(runs / "new/mfe")
    with pytest.raises(ValueError, match=r"2 different models are named 'mfe' \(old, old\)"):
        compare_across({"photographs": [old], "mine": [replace(new, origin="old")]}, runs)


def test_files_of_one_name_are_told_apart_too(answers, tmp_path):
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "theirs.csv").write_text("image,region,score\nimage-0,region-0,0.5")
    one, two = (read_csv(tmp_path / place / "theirs.csv", {"photographs": answers})["photographs"] for place in ("a", "b"))
    assert names(tell_apart({"photographs": [one, two, Entry("c", answers)]})) == {"photographs": ["theirs (a)", "theirs (b)", "c"]}
