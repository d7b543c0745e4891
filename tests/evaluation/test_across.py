import json
from dataclasses import replace
from itertools import permutations

import pandas as pd
import pytest

from evaluation import comparison
from evaluation.across import _folders, by_data, columns, compare_across, labelled, notes
from evaluation.entries import Entry, agree, data_name


@pytest.fixture(scope="module")
def entries(answers):
    """Model a on two data sets, b on the first; the second has the first's names of regions and other labels."""
    other = answers.assign(quality=1 - answers["quality"])
    return [
        Entry("a", answers, data="1111", dataset="photographs", trained_on="photographs"),
        Entry("b", answers.assign(quality_pred=0.9 * answers["quality"], quality_parsed=True), data="1111", dataset="photographs"),
        Entry("a", other, data="2222", dataset="roi_folder mine", trained_on="photographs"),
    ]


@pytest.fixture(scope="module")
def across(entries, tmp_path_factory):
    out = tmp_path_factory.mktemp("across")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "write_page", lambda *_: None)
        return out, compare_across(by_data(entries), out, draws=20)


def test_entries_are_grouped_by_their_labels_not_by_names(entries):
    groups = by_data(entries)
    assert {n: [e.name for e in g] for n, g in groups.items()} == {"photographs": ["a", "b"], "roi_folder mine": ["a"]}
    assert agree(entries[0], replace(entries[1], table=entries[1].table[5:]))  # some regions are enough
    assert not agree(entries[0], replace(entries[1], table=entries[1].table.assign(id="elsewhere")))


@pytest.mark.parametrize("order", list(permutations("abc")))
def test_entries_are_grouped_alike_in_any_order(answers, order):
    """The first and the last share no region, and both share some with the second; another's labels differ."""
    parts = {"a": answers[:20], "b": answers, "c": answers[30:]}
    mine = [Entry(n, parts[n].reset_index(drop=True), dataset="photographs") for n in order]
    other = Entry("d", answers.assign(quality=1 - answers["quality"]), dataset="roi_folder mine")
    groups = by_data([mine[0], other, *mine[1:]])
    assert {n: [e.name for e in g] for n, g in groups.items()} == {"photographs": list(order), "roi_folder mine": ["d"]}


@pytest.mark.parametrize("order", list(permutations("abc")))
def test_who_agrees_with_two_that_disagree_is_of_no_data_set(answers, order):
    parts = {"a": answers, "b": answers[:20], "c": answers.assign(quality=answers["quality"].where(answers.index != 30, 0.0))}
    with pytest.raises(ValueError, match=r"have different quality labels for 'region-30' .*some agree with both: give those of one"):
        by_data([Entry(n, parts[n]) for n in order])


def test_a_run_that_is_called_as_a_data_set_is_not_written_into(entries, tmp_path):
    run = tmp_path / "photographs"
    run.mkdir()
    (run / "config.yaml").write_text("name: photographs")
    with pytest.raises(FileExistsError, match=r"photographs is the folder of a run"):
        compare_across(by_data(entries), tmp_path, draws=2)
    assert [p.name for p in tmp_path.rglob("*")] == ["photographs", "config.yaml"]


def test_data_sets_whose_names_are_alike_have_folders_of_their_own(entries, tmp_path, monkeypatch):
    monkeypatch.setattr(comparison, "write_page", lambda *_: None)
    names = ["roi a b", "roi a_b", "roi a/b", "ROI a b", "..", "", "roi a_b_2"]
    folders = _folders(names)
    assert len({f.casefold() for f in folders.values()}) == len(names)
    assert folders["roi a b"] == "roi_a_b"
    assert all(f.strip(".") and "/" not in f for f in folders.values())
    pair = entries[:2]
    groups = {"mine a b": pair, "mine a_b": [replace(e, table=e.table.assign(quality=1 - e.table["quality"])) for e in pair]}
    result = compare_across(groups, tmp_path, draws=2)
    for number, (name, told) in enumerate(result["datasets"].items()):
        written = json.loads((tmp_path / told["folder"] / "comparison.json").read_text())["models"]["b"]["quality"]["srcc"]
        assert written == result["models"]["b"][name]["quality"]["srcc"]
        assert (written < 0) == bool(number)


def test_data_sets_of_one_name_are_told_apart(entries):
    same = [replace(e, dataset="photographs") for e in entries]
    assert list(by_data(same)) == ["photographs 1111", "photographs 2222"]
    assert list(by_data([replace(e, data=None) for e in same])) == ["photographs 1", "photographs 2"]
    assert list(by_data([replace(e, data="1111") for e in same])) == ["photographs 1111 1", "photographs 1111 2"]


def test_each_model_stands_in_the_columns_of_its_data(across):
    out, result = across
    assert {d: (own["regions"], own["sources"]) for d, own in result["datasets"].items()} == {
        "photographs": (48, 4),
        "roi_folder mine": (48, 4),
    }
    (note,) = result["datasets"]["roi_folder mine"]["notes"]
    assert note.startswith("a orders quality against the labels")
    assert f"- roi_folder mine: {note}\n" in (out / "across.md").read_text()
    a, b = result["models"]["a"], result["models"]["b"]
    assert a["photographs"]["quality"]["srcc"] == pytest.approx(-a["roi_folder mine"]["quality"]["srcc"])
    assert b["photographs"]["quality"]["srcc"] == pytest.approx(1)
    assert "roi_folder mine" not in b
    assert a["roi_folder mine"]["quality"]["intervals"]["srcc"]["low"] is not None
    assert json.loads((out / "across.json").read_text()) == result
    assert (out / "photographs" / "comparison.json").exists()
    assert not (out / "roi_folder_mine").exists()  # one model is no comparison


def test_the_tables_say_what_was_trained_on(across):
    out, result = across
    assert list(labelled(result)) == ["a (trained on photographs)", "b"]
    assert [c.title for c in columns(result)["Quality"]] == [
        "photographs: SRCC",
        "photographs: PLCC",
        "photographs: whole image",
        "roi_folder mine: SRCC",
        "roi_folder mine: PLCC",
        "roi_folder mine: whole image",
    ]
    (line,) = [x for x in (out / "across.md").read_text().split("## ")[1].splitlines() if x.startswith("| b ")]
    assert [c.strip() for c in line.split("|")[5:8]] == ["–", "–", "–"]
    assert r"\textbf{1.000}" in (out / "across.tex").read_text()
    table = pd.read_csv(out / "across.csv")
    assert len(table[table["task"] != "distortion"]) == 6
    assert {"srcc_low", "whole_image", "plcc_fitted_5", "labelled", "unparsed", "skipped", "judged", "tied"} < set(table)
    assert set(table[table["dataset"] == "roi_folder mine"]["model"]) == {"a"}
    classed = table[table["task"] == "distortion"]
    assert len(classed) == 3
    for row in classed.itertuples():
        assert row.macro_f1 == pytest.approx(result["models"][row.model][row.dataset]["distortion"]["macro_f1"])
        assert row.macro_f1_low <= row.macro_f1 <= row.macro_f1_high


def test_dashes_and_who_is_missing_are_told_across_data_sets(entries, tmp_path, monkeypatch):
    monkeypatch.setattr(comparison, "write_page", lambda *_: None)
    flat = replace(entries[2], table=entries[2].table.assign(quality_pred=0.5).drop(columns=["importance_parsed", "distortion_parsed"]))
    result = compare_across(by_data([*entries[:2], flat]), tmp_path, draws=2, absent={"c": "out of memory"})
    told = notes(result)
    assert told == [
        "missing: c (out of memory)",
        "photographs: importance: no whole-image control for a, b, since its answers are all equal",
        "roi_folder mine: quality: a gives all 47 regions the same score: it orders nothing, and half of its pairs count as right",
        "roi_folder mine: b: not measured on it",
        "roi_folder mine: quality: no SRCC, PLCC for a, since all 47 predictions are the same",
        "roi_folder mine: importance: not asked of a",
        "roi_folder mine: distortion: not asked of a",
    ]
    assert all(f"- {line}\n" in (tmp_path / "across.md").read_text() for line in told)
    assert all(f"% {line}\n" in (tmp_path / "across.tex").read_text() for line in told)
    assert json.loads((tmp_path / "photographs" / "comparison.json").read_text())["absent"] == {"c": "out of memory"}


def test_a_model_twice_on_one_data_set_is_refused(entries, tmp_path):
    with pytest.raises(ValueError, match="two entries are named 'a'"):
        compare_across(by_data([entries[0], entries[0], entries[2]]), tmp_path, draws=2)


def test_names_of_data():
    assert data_name({"dataset": "photographs", "root": "embedded"}) == "photographs"
    assert data_name({"dataset": "roi_folder", "root": "data/mine"}) == "roi_folder mine"
    assert data_name({"dataset": "mixture"}) == "mixture"
    assert data_name({}) is None
