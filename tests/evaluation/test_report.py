import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from evaluation import report
from evaluation.protocols import evaluate
from evaluation.report import console_table, gallery, headline, write_report

EVIL = '<script>alert("1")</script>'
VOID = {"meta", "img", "source", "link", "br", "hr", "input"}


class Page(HTMLParser):
    """Tags, the addresses they point at, the text, and whether every tag is closed in order."""

    def __init__(self):
        super().__init__()
        self.tags, self.addresses, self.text, self.open = [], [], "", []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "data", "poster")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def images(_):
    mask = np.zeros((40, 60), bool)
    mask[10:30, 10:30] = True
    return np.full((40, 60, 3), 128, np.uint8), mask


@pytest.fixture(scope="module")
def written(answers, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    table = answers.assign(quality_text=EVIL)
    curves = folder / "metrics.csv"
    pd.DataFrame({"step": [1, 2], "train/loss": [2.0, 1.0]}).to_csv(curves)
    run = {"name": "quick & dirty", "seed": 3, "versions": {"torch": "2.6"}, "note": EVIL}
    path = write_report(folder, table, evaluate(answers), curves, images, run, "model: <b>7b</b>")
    page = Page()
    page.feed(path.read_text())
    page.close()
    return folder, path.read_text(), page


def test_the_page_is_well_formed_and_stands_alone(written):
    _, html, page = written
    assert not page.open
    assert page.addresses
    assert all(a.startswith("data:image/") for a in page.addresses)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert not re.search(r"url\(|@import", html)
    assert "prefers-color-scheme: dark" in html


def test_foreign_text_is_escaped(written):
    _, html, page = written
    assert EVIL not in html
    assert EVIL in page.text
    assert "model: <b>7b</b>" in page.text


def test_the_page_holds_the_numbers(written, answers):
    _, _, page = written
    metrics = evaluate(answers)
    quality = metrics["quality"]
    numbers = (quality["srcc"], quality["plcc_fitted_5"], quality["by_type"]["blur"]["srcc"], metrics["importance"]["krcc"])
    for value in (*numbers, metrics["distortion"]["macro_f1"]):
        assert f"{value:.3f}" in page.text
    assert headline(metrics) in page.text
    assert "quick & dirty" in page.text
    assert '"torch": "2.6"' in page.text


def test_plots_are_written_and_nothing_is_left_behind(written):
    folder, _, _ = written
    names = {p.stem for p in (folder / "plots").iterdir()}
    assert names == {
        *("scatter_quality", "scatter_importance", "calibration_quality"),
        *("control", "confusion_distortion", "confusion_severity", "curves"),
    }
    assert {p.name for p in folder.iterdir()} == {"plots", "report.html", "metrics.csv"}


def test_a_failure_leaves_the_old_page(tmp_path, monkeypatch):
    target = tmp_path / "report.html"
    target.write_text("old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(report.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        report.write_whole(target, b"new")
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_the_gallery_ranks_by_error_and_by_prediction(answers):
    rows = gallery(answers, images)
    assert [r.title for r in rows] == ["Judged best", "Judged worst", "Looks best to the model", "Looks worst to the model"]
    error = (answers["quality_pred"] - answers["quality"]).abs()
    assert rows[0].cards[0].title == answers["id"][error.idxmin()]
    assert rows[1].cards[0].title == answers["id"][error.idxmax()]
    assert rows[2].cards[0].title == answers["id"][answers["quality_pred"].idxmax()]
    for row in rows:
        shown = answers.set_index("id").loc[[c.title for c in row.cards], "image"]
        assert shown.is_unique


def test_a_card_says_what_did_not_parse(answers):
    first = answers.iloc[[7]].assign(types="blur;noise", severities="minor;severe", quality_std=np.nan)
    facts = {f.name: f for f in gallery(first, images)[0].cards[0].facts}
    assert (facts["Distortion"].label, facts["Distortion"].answer) == ("minor blur, severe noise", "did not parse")
    assert "±" not in facts["Quality"].answer


@pytest.mark.filterwarnings("error")
def test_a_run_without_labels_and_with_one_task_is_still_a_page(answers, tmp_path):
    columns = [c for c in answers if not c.startswith(("importance_", "distortion_", "types_", "severities_"))]
    bare = answers[columns].assign(quality=np.nan, importance=np.nan, types=None, severities=None).drop(columns="quality_image")
    metrics = evaluate(bare)
    html = write_report(tmp_path, bare, metrics, None, images, {}, "").read_text()
    assert "No correlation exists" in html
    assert list((tmp_path / "plots").iterdir()) == []
    assert "No correlation exists" in headline(metrics)


def test_the_terminal_table_is_aligned_and_complete(answers):
    metrics = evaluate(answers)
    text = console_table(metrics)
    lines = text.splitlines()
    assert len({len(line) for line in lines[:5]}) == 1
    assert len({len(line) for line in lines[8:11]}) == 1
    assert f"{metrics['quality']['srcc']:.3f}" in lines[1]
    assert f"{metrics['quality']['plcc_fitted_5']:.3f}" in lines[1]
    assert lines[1].split()[-3:] == ["47", "1", str(answers["quality_pred"].nunique())]
    assert f"{metrics['control']['whole_image']['quality']['srcc']:.3f}" in lines[2]
    assert "unparsed answers 2 (quality 1, importance 0, distortion 1)" in text
    assert lines[7] == ""


@pytest.mark.parametrize(
    ("count", "notes"),
    [
        (
            2,
            [
                "quality: no correlation over 2 regions, at least 3 are needed",
                "importance: no correlation over 2 regions, at least 3 are needed",
            ],
        ),
        (4, [f"{task}: no fit (4 points, at least 10 are needed)" for task in ("quality", "importance")]),
    ],
)
def test_numbers_that_do_not_exist_are_explained(answers, tmp_path, count, notes):
    few = answers.iloc[:count]
    metrics = evaluate(few)
    assert (metrics["quality"]["srcc"] is None) == (count < 3)
    assert console_table(metrics).splitlines()[7 : 7 + len(notes)] == notes
    html = write_report(tmp_path, few, metrics, None, images, {}, "").read_text()
    assert all(f"<p>{note.capitalize()}.</p>" in html for note in notes)
