import json
import math
from dataclasses import replace
from html import unescape
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from evaluation import comparison, ranking
from evaluation.bootstrap import holm
from evaluation.comparison import compare
from evaluation.comparison_page import disagreements, headline
from evaluation.differences import families, leading
from evaluation.entries import Entry, align, read_csv, read_run
from evaluation.participants import answered
from evaluation.protocols import SCORES, distortion_agreement
from evaluation.splits import draw_splits, read_splits
from tests.evaluation.test_report import Page, images

COLUMNS = [ranking.Column("a", ("a",)), ranking.Column("b", ("b",), "low", 1)]


@pytest.fixture(scope="module")
def three(answers, tmp_path_factory):
    """A good model, one of noise, and predictions from a file that know quality alone, on another scale and without one region."""
    rng = np.random.default_rng(1)
    noise = answers.assign(quality_pred=rng.random(48), quality_parsed=True)
    path = tmp_path_factory.mktemp("theirs") / "theirs & co.csv"
    theirs = answers[["image", "id"]].rename(columns={"id": "region"}).assign(score=answers["quality"] * 80 + 10)
    theirs.iloc[1:].to_csv(path, index=False)
    return [
        Entry("good", answers, 1000, 2.0, 1.0, "a CPU", "x"),
        Entry("noise", noise, 500, 4.0, 2.0, "a CPU", "x"),
        read_csv(path, {"photographs": answers})["photographs"],
    ]


@pytest.fixture(scope="module")
def compared(three, tmp_path_factory):
    out = tmp_path_factory.mktemp("comparison")
    return out, compare(three, out, images, draws=40)


def but_noise(notes):
    """Without those that noise always earns: four sources and random answers have some halves that no rising curve fits."""
    return [n for n in notes if " splits there is no fitted PLCC of " not in n and not n.startswith("quality: noise ")]


def test_all_are_judged_on_the_same_regions(compared):
    _, result = compared
    assert (result["regions"], result["scored_by_all"]) == (48, 47)
    assert result["judged"] == {"quality": 46, "importance": 48, "distortion": 48}  # a file about quality takes nothing from the others
    assert {m["quality"]["n"] for m in result["models"].values()} == {46}  # one answer of the good model did not parse
    assert result["models"]["good"]["unparsed"] == 2
    counted = {n: list(m["coverage"]["quality"].items()) for n, m in result["models"].items()}
    keys = ("labelled", "unparsed", "skipped", "left_out", "judged")
    counts = {"good": (48, 1, 0, 1, 46), "noise": (48, 0, 0, 2, 46), "theirs & co": (48, 0, 1, 1, 46)}
    assert counted == {name: list(zip(keys, own, strict=True)) for name, own in counts.items()}
    (note,) = but_noise(result["notes"])
    assert note == (
        "theirs & co has no answer about quality for 1 of 48 labelled regions, the first is 'region-0': no model is judged on them"
    )


@pytest.mark.usefixtures("_no_page")
def test_a_file_that_lacks_many_rows_takes_no_region_from_the_others(three, answers, tmp_path):
    few = Entry("few", three[2].table[:30])
    result = compare([few, *three[:2]], tmp_path, draws=10)
    assert result["judged"] == {"quality": 47, "importance": 48, "distortion": 48}
    assert result["models"]["noise"]["quality"]["n"] == 47
    assert "quality" not in result["models"]["few"]
    assert result["models"]["few"]["coverage"] == {"quality": {"labelled": 48, "unparsed": 0, "skipped": 18, "left_out": 30, "judged": 0}}
    (note,) = but_noise(result["notes"])
    assert note.startswith("few is left out of quality: it answered 30 of 48 labelled regions")


@pytest.mark.usefixtures("_no_page")
def test_two_files_that_lack_other_rows_do_not_add_up(three, answers, tmp_path):
    """Each has more than nine tenths, both together have not: one is left out."""
    one, two = (Entry(n, three[2].table.drop(index=range(*gap))) for n, gap in (("one", (0, 3)), ("two", (10, 14))))
    result = compare([three[1], one, two], tmp_path, draws=10)
    assert [n for n, m in result["models"].items() if "quality" in m] == ["noise", "one"]
    assert result["judged"]["quality"] == 44


@pytest.mark.usefixtures("_no_page")
def test_a_comparison_of_nothing_is_refused(three, tmp_path):
    with pytest.raises(
        ValueError, match=r"nothing is left to compare. few is left out of quality: it answered 30 of 48 .*add the missing rows"
    ):
        compare([three[0], Entry("few", three[2].table[:30])], tmp_path, draws=2)


@pytest.mark.usefixtures("_no_page")
def test_half_the_answers_unparsed_leave_nothing_to_compare(three, answers, tmp_path):
    """And the remedy is about what failed, not about rows, of which none is missing."""
    table = answers.drop(columns=["importance_parsed", "distortion_parsed"])
    half = Entry("half", table.assign(quality_parsed=np.arange(48) % 2 == 0))
    with pytest.raises(
        ValueError, match=r"nothing is left to compare. half is left out of quality: .*a file needs a score in each row"
    ) as e:
        compare([Entry("good", table), half], tmp_path, draws=2)
    assert "missing rows" not in str(e.value)


def test_a_score_that_parsed_and_is_no_number_is_counted_as_unparsed(three, answers):
    table = answers.assign(quality_pred=answers["quality"].where(answers.index > 3), quality_parsed=answers.index != 10)
    _, told = align([three[1], Entry("empty", table.drop(index=[20, 21]).reset_index(drop=True))])
    assert told["coverage"]["empty"]["quality"] == {"labelled": 48, "unparsed": 5, "skipped": 2}
    assert told["coverage"]["empty"]["distortion"] == {"labelled": 48, "unparsed": 1, "skipped": 2}


@pytest.mark.parametrize(("column", "why"), [("source", "intervals and splits go over sources"), ("image", "numbers within images")])
def test_regions_of_other_sources_or_images_are_refused(three, answers, column, why):
    """Also where the first entry lacks the region, and the second tells of it."""
    other = answers.assign(**{column: [f"{v}-x" if i == 40 else v for i, v in enumerate(answers[column])]})
    first, second = replace(three[0], table=answers[:30]), replace(three[1], table=answers)
    was = answers[column][40]
    with pytest.raises(
        ValueError, match=rf"noise and other have different {column}s for 1 regions.*'region-40' \({was} and {was}-x\): {why}"
    ):
        align([first, second, Entry("other", other)])


@pytest.mark.usefixtures("_no_page")
def test_a_run_on_fewer_regions_takes_none_from_the_others(three, tmp_path):
    few = Entry("few", three[1].table[:24])
    result = compare([few, *three[:2]], tmp_path, draws=10)
    assert result["judged"] == {"quality": 47, "importance": 48, "distortion": 48}
    assert result["models"]["few"]["coverage"]["distortion"]["skipped"] == 24
    assert [n.split(":")[0] for n in but_noise(result["notes"])] == [
        f"few is left out of {t}" for t in ("quality", "importance", "distortion")
    ]


@pytest.mark.usefixtures("_no_page")
def test_who_answers_little_takes_no_region_from_the_others(three, answers, tmp_path):
    bad = Entry("bad", answers.assign(quality_parsed=answers["id"] == "region-1"))
    result = compare([three[0], bad, three[1]], tmp_path, draws=10)
    assert result["models"]["good"]["quality"]["n"] == result["models"]["noise"]["quality"]["n"] == 47
    assert result["models"]["bad"]["importance"]["n"] == 48
    assert "quality" not in result["models"]["bad"]
    assert result["models"]["bad"]["coverage"]["quality"]["unparsed"] == 47
    (note,) = but_noise(result["notes"])
    assert note.startswith("bad is left out of quality: it answered 1 of 48 labelled regions")
    assert note in json.loads((tmp_path / "comparison.json").read_text())["notes"]


def test_a_few_failures_leave_out_the_regions_and_are_told(three, answers):
    some = Entry("some", answers.assign(quality_parsed=np.arange(48) % 16 != 0))
    tables, excluded = answered([three[1], some], "quality")
    assert [len(rows) for rows in tables.values()] == [44, 44]  # one of the 45 answers is empty
    assert excluded == {}


def test_another_scale_has_no_error_and_no_interval_of_one(compared):
    _, result = compared
    models = result["models"]
    shared = {"srcc", "plcc", "plcc_fitted", "krcc", "within_image_srcc", "pair_accuracy"}
    assert set(models["theirs & co"]["quality"]["intervals"]) == shared
    assert set(models["good"]["quality"]["intervals"]) == shared | {"rmse", "over_whole_image"}
    assert "p" not in models["good"]["quality"]["intervals"]["srcc"]  # only differences are tested


@pytest.mark.usefixtures("_no_page")
def test_a_reversed_scale_is_pointed_out(three, answers, tmp_path):
    result = compare([three[0], Entry("mos", answers.assign(quality_pred=5 - answers["quality"], quality_parsed=True))], tmp_path, draws=10)
    (note,) = but_noise(result["notes"])
    assert note == "mos orders quality against the labels (SRCC -1.000): is a higher score better in it?"


def test_a_task_that_was_not_asked_is_absent_and_a_dash(compared):
    out, result = compared
    theirs = result["models"]["theirs & co"]
    assert theirs["quality"]["srcc"] == pytest.approx(1)
    assert theirs["quality"]["rmse"] is None
    assert 0 < theirs["quality"]["rmse_fitted"] < 0.1  # a curve brings it to the labels' scale
    assert result["models"]["noise"]["quality"]["rmse_fitted"] is None
    assert "rmse" not in theirs["quality"]["intervals"]
    assert "importance" not in theirs
    assert "distortion" not in theirs
    (line,) = [x for x in section(out, "Overview").splitlines() if x.startswith("| theirs & co")]
    assert [c.strip() for c in line.split("|")[5:10]] == ["–"] * 5
    assert "| good |" in section(out, "Importance: order")
    assert "theirs" not in section(out, "Importance: order")  # a row of dashes tells nothing


def section(out, title):
    (found,) = [s for s in (out / "comparison.md").read_text().split("## ") if s.startswith(f"{title}\n")]
    return found


def test_each_number_stands_in_a_table(compared):
    out, result = compared
    good = result["models"]["good"]

    def row(title):
        head, *lines = [x.strip("| ").split(" | ") for x in section(out, title).splitlines() if x.startswith("| ")]
        (own,) = [x for x in lines if x[0] == "good"]
        head = [f"{before}, interval" if name == "95 % interval" else name for before, name in pairwise(["", *head])]
        return dict(zip(head, (c.strip("*").removeprefix("<u>").removesuffix("</u>") for c in own), strict=True))

    def ends(task, key):
        found = good[task]["intervals"][key]
        return f"{found['low']:.3f} to {found['high']:.3f}"

    assert row("Overview")["Unparsed"] == "2"
    for column, key in (("SRCC", "srcc"), ("In image", "within_image_srcc"), ("Pairs", "pair_accuracy")):
        assert row("Quality: order")[f"{column}, interval"] == ends("quality", key)
    above = good["quality"]["srcc"] - good["quality"]["whole_image"]
    assert row("Quality: order")["Above it"] == f"{above:.3f}"
    assert row("Quality: order")["Above it, interval"] == ends("quality", "over_whole_image")
    values = row("Quality: values")
    assert values["5 parameters"] == f"{good['quality']['plcc_fitted_5']:.3f}"
    assert values["RMSE fitted"] == f"{good['quality']['rmse_fitted']:.3f}"
    for column, key in (("PLCC", "plcc"), ("4 parameters", "plcc_fitted"), ("RMSE", "rmse")):
        assert values[f"{column}, interval"] == ends("quality", key)
    for title, task in (("Distortion type", "distortion"), ("Severity", "severity")):
        told = row(title)
        assert all(told[f"{column}, interval"] == ends(task, key) for column, key in (("Accuracy", "accuracy"), ("Macro-F1", "macro_f1")))
        for column, key in (("Precision", "precision"), ("Recall", "recall"), ("F1", "f1"), ("Macro-F1", "macro_f1")):
            assert told[column] == f"{good[task][key]:.3f}"
    assert row("Quality by distortion")["blur (11)"] == f"{good['quality']['by_type']['blur']['srcc']:.3f}"
    assert row("Importance by share of the image")["10%-20% (48)"] == f"{good['importance']['srcc']:.3f}"
    counts = row("Quality: unparsed answers, skipped regions and ties")
    assert counts == {
        "Model": "good", "Labelled": "48", "Unparsed": "1", "Skipped": "0", "Left out": "1", "Judged": "46",
        "Distinct": str(good["quality"]["distinct"]), "Tied": str(good["quality"]["tied"]),
        "At 0 or 1": str(good["quality"]["at_bounds"]), "Images": str(good["quality"]["within_image_images"]),
    }  # fmt: skip
    notes = section(out, "Notes")
    hint = "quality, importance, distortion, severity: intervals are hints, since sources count as fewer than 20 of equal size"
    assert f"- {hint}\n" in notes
    latex = (out / "comparison.tex").read_text()
    assert all(f"% {title}\n" in latex for title in ranking.sections(result["models"], SCORES))
    flat = pd.read_csv(out / "comparison.csv").set_index("model").loc["good"]
    assert flat["quality.by_type.blur.srcc"] == pytest.approx(good["quality"]["by_type"]["blur"]["srcc"])
    assert flat["severity.per_severity_f1.minor"] == pytest.approx(good["severity"]["per_severity_f1"]["minor"])
    assert flat["quality.intervals.srcc.low"] == pytest.approx(good["quality"]["intervals"]["srcc"]["low"])
    assert flat["coverage.quality.skipped"] == 0
    page = (out / "report.html").read_text()
    assert page.count("fewer than 20") == page.count(hint) == 1
    assert all(f">{title}</h" in page for title in ranking.sections(result["models"], SCORES))


@pytest.mark.parametrize("task", ["distortion", "severity"])
def test_what_is_drawn_of_classes_is_what_the_table_says(answers, task):
    """Also where an answer names no severity, which is no class."""
    rows = answers.assign(types_pred=["", *answers["types_pred"][1:]], severities_pred=["", *answers["severities_pred"][1:]])
    rows.loc[4, ["types_pred", "severities_pred"]] = ["noise", ""]
    _, statistics, sources = comparison._class_statistics({"m": rows}, task)
    expected = distortion_agreement(rows)[task]
    assert expected["macro_f1"] < 1
    weights = np.ones((1, len(sources)))
    assert len(sources) == expected["n"]
    assert statistics["m"]["macro_f1"](weights)[0] == pytest.approx(expected["macro_f1"])


def test_the_control_stands_beside_both_scores(compared):
    _, result = compared
    for task in SCORES:
        path = (task, "whole_image")
        assert path in [c.path for c in ranking.HEADLINE]
        assert path in [c.path for c in ranking.order_columns(task)]
    good = result["models"]["good"]
    assert good["quality"]["whole_image"] is not None
    assert good["importance"]["whole_image"] is None  # it never varies


def test_what_a_model_is_above_its_control_has_an_interval(answers):
    """Paired: where both are the same there is no doubt about it, however far SRCC itself may be off."""

    def found(**changed):
        rows = answers.assign(quality_parsed=True, quality_pred=answers["quality_pred"].fillna(0.5), source=answers["image"]).assign(
            **changed
        )
        models = comparison.judge([Entry("m", rows)], draws=5)[0]["models"]
        return models["m"]["quality"], ranking.explained(models, SCORES)

    plain, _ = found()
    own = plain["intervals"]["over_whole_image"]
    assert own["estimate"] == plain["over_whole_image"] == pytest.approx(plain["srcc"] - plain["whole_image"])
    assert 0 < own["low"] < own["estimate"] < own["high"]
    same, _ = found(quality_image=answers["quality_pred"].fillna(0.5))
    assert same["over_whole_image"] == 0
    assert same["intervals"]["srcc"]["low"] < same["srcc"]
    some, told = found(quality_image=answers["quality_image"].where(answers.index > 3))
    assert some["whole_image"] is not None
    assert some["over_whole_image"] is None
    assert "quality: no difference from the control for m, since not all regions have a control" in told
    flat, told = found(quality_pred=0.5)
    assert flat["over_whole_image"] is None
    assert [x for x in told if "difference from the control" in x and "since all 48 predictions are the same" in x]


def test_disagreements_are_shown_from_the_highest_rank_to_the_lowest(answers):
    """Of seven models the three highest and the three lowest, and the label where it lies."""
    rows = answers.iloc[[0, 4, 8, 12]].reset_index(drop=True)
    preds = {f"m{k}": rows.assign(quality_pred=[0.5 + (k - 3) / 10, 0.2, 0.5, 0.8], quality=[0.1, 0.2, 0.3, 0.4]) for k in range(7)}
    cards = disagreements({"quality": preds, "importance": {}}, images)
    first = next(c for c in cards if c["id"] == rows["id"][0])
    assert first["between"] == 1
    assert first["task"] == "quality"
    assert [n for n, _ in first["rows"][:3]] == ["m6", "m4", "m5"]
    assert first["rows"][-1][0] == "label"
    assert first["rows"][-1][1] == 0.25
    assert "m3" not in dict(first["rows"])
    assert cards[0]["id"] == first["id"]  # where they differ most
    two = disagreements({"quality": dict(list(preds.items())[:2]), "importance": {}}, images)
    assert two[0]["between"] == 0
    assert {n for n, _ in two[0]["rows"]} == {"m0", "m1", "label"}


def test_a_region_without_a_picture_is_passed_over(answers):
    """The pictures are those of one run, and another may have been measured on more regions."""
    known = {f"region-{i}" for i in range(24)}

    def some(region):
        if region not in known:
            raise KeyError(region)
        return images(region)

    preds = {"a": answers, "b": answers.assign(quality_pred=np.random.default_rng(3).random(48))}
    cards = disagreements({"quality": {n: t.drop(index=5) for n, t in preds.items()}, "importance": {}}, some)
    assert 0 < len(cards) <= 6
    assert {c["id"] for c in cards} <= known


def test_a_dash_is_explained(compared):
    out, result = compared
    told = ranking.explained(result["models"], SCORES)
    flat = [line for line in told if " parameters for" in line]
    assert all(line.startswith("quality: no PLCC after ") and " for noise, since the best rising curve is flat" in line for line in flat)
    assert [line for line in told if line not in flat and "SRCC of a group" not in line and " over splits" not in line] == [
        "quality: no whole-image control, difference from the control for theirs & co, since its predictions hold none",
        "importance: not asked of theirs & co",
        "importance: no whole-image control, difference from the control for good, noise, since its answers are all equal",
        "distortion: not asked of theirs & co",
        "quality: no RMSE, number at 0 or 1 for theirs & co, since predictions leave [0, 1]",
        "cost: not known of theirs & co, which came as a file",
        "quality, importance, distortion, severity: intervals are hints, since sources count as fewer than 20 of equal size",
    ]
    for line in told:
        assert f"- {line}\n" in (out / "comparison.md").read_text()
        assert f"% {line}\n" in (out / "comparison.tex").read_text()
        assert line in unescape((out / "report.html").read_text())


def test_of_many_models_some_are_named():
    models = {f"m{k}": {"parameters": 1, "ms_per_region": 1.0, "unparsed": 0, "skipped": 0} for k in range(9)}
    (line,) = [x for x in ranking.explained(models, SCORES) if x.startswith("peak memory")]
    assert line.startswith("peak memory: not measured for m0, m1, m2, m3, m4, m5, 3 more, since")


def test_nothing_is_less_than_nothing():
    models = {"x": {"a": -0.0001, "i": {"low": -0.0002, "high": 0.5}}}
    columns = [ranking.Column("a", ("a",)), ranking.Column("i", ("i",), interval=True)]
    assert [t for t, _ in ranking.cells(models, columns)[0]] == ["0.000", "0.000 to 0.500"]


def test_a_mean_within_images_needs_more_sources(three):
    rows = pd.concat(
        [e.assign(id=e["id"] + str(k), image=e["image"] + str(k), source=e["image"] + str(k)) for k, e in enumerate([three[0].table] * 3)]
    )
    found = comparison.judge([replace(three[0], table=rows.reset_index(drop=True))], draws=20)[0]["models"]["good"]
    told = {key: own["few"] for key, own in found["quality"]["intervals"].items()}
    assert {key for key, few in told.items() if few} == {"within_image_srcc"}
    hint = "quality, importance: the interval within images is a hint, since sources count as fewer than 40 of equal size"
    assert hint in ranking.explained({"good": found}, SCORES)


WORDS = {
    "srcc": "SRCC",
    "krcc": "KRCC",
    "plcc": "PLCC",
    "plcc_fitted": "PLCC after four parameters",
    "plcc_fitted_5": "PLCC after five parameters",
    "rmse": "RMSE",
    "rmse_fitted": "RMSE after four parameters",
    "within_image_srcc": "SRCC within images",
    "pair_accuracy": "share of pairs",
    "whole_image": "whole-image control",
    "over_whole_image": "difference from the control",
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
}
WHOLE = ("not asked of", "all is left out of", "not judged for")  # lines about all numbers of a task


def unexplained(models, columns, told):
    """The dashes that no line of `told` is about: of the model, of the task, and of the number or of all."""
    out = []
    for name, row in zip(models, ranking.cells(models, columns), strict=True):
        for (text, _), column in zip(row, columns, strict=True):
            if text not in ("–", "no fit"):
                continue
            task, key = column.path[0], column.path[-1]
            if len(column.path) == 1:
                named = {"parameters": "parameters", "ms_per_region": "time", "peak_gib": "peak memory"}
                task, word = named.get(key, "training"), ""
            else:
                group = {"by_type": "group by distortion", "by_area": "group by share"}.get(column.path[1])
                word = group or WORDS.get(key, "nothing that is ever missing alone")
            tasks = {"severity": ("severity:", "distortion:")}.get(task, (f"{task}:", "cost:") if len(column.path) == 1 else (f"{task}:",))
            about = [x for x in told if x.startswith(tasks) and name in x.split(", since")[0]]
            if not any(word in x or any(w in x for w in WHOLE) for x in about):
                out.append((name, column.path))
    return out


def scenarios(answers):
    """What a comparison lacks numbers for: name -> its entries, and what a line must say."""
    alone = answers.assign(image=answers["id"])
    one = answers.assign(source="one")
    few = answers.assign(source=["rare" if i < 2 else "often" for i in range(48)])
    few["quality"] = [0.2, 0.9] + [0.5] * 46  # without the first source no label differs
    flat = answers.assign(quality_pred=0.5, quality_parsed=True)
    none = answers.assign(quality_parsed=False)
    clean = answers.assign(types="", severities="")
    unknown = answers.assign(importance=np.nan, types=None, severities=None)
    unasked = answers.drop(columns=["importance_parsed", "distortion_parsed"])
    return {
        "one region of an image": (
            alone,
            ["quality: no SRCC within images for m, n, since no image has", "quality: no share of pairs for m, n, since"],
        ),
        "one source": (
            one,
            ["quality: no interval of SRCC, interval of", "distortion: no interval of accuracy, interval of macro-F1 for m, n"],
        ),
        "a source that all hangs on": (few, ["quality: no interval of SRCC, interval of "]),
        "flat": (flat, ["quality: no SRCC, KRCC, ", "parameters for m, since all 48 predictions are the same"]),
        "nothing parsed": (none, ["quality: all is left out of m, none of whose answers can be used"]),
        "clean": (clean, ["severity: not judged for m, n, since no region is labelled with a distortion and its severity"]),
        "no labels": (unknown, ["importance: not judged for m, n, since no region has a label", "distortion: not judged for m, n"]),
        "few answers": (answers[:20], ["quality: all is left out of m, see the notes"]),
        "not asked": (unasked, ["importance: not asked of m", "distortion: not asked of m"]),
    }


@pytest.mark.parametrize(
    "name", list(scenarios(pd.DataFrame({"id": range(48), "types": "", "importance_parsed": 1, "distortion_parsed": 1})))
)
def test_each_dash_has_a_line(answers, name):
    table, says = scenarios(answers)[name]
    # the same regions and sources, all of them answered
    known = table if len(table) == 48 else answers
    other = known.assign(quality_pred=answers["quality"], quality_parsed=True, importance_parsed=True, distortion_parsed=True)
    entries = [Entry("m", table), Entry("n", other, 5, 1.0, 1.0, "a CPU"), Entry("o", other, 5, 1.0, 1.0, "a CPU")]
    models = comparison.judge(entries[: 3 if len(table) < 48 else 2], draws=5)[0]["models"]
    told = ranking.explained(models, SCORES)
    dashes = 0
    for section in ranking.sections(models, SCORES).values():
        rows = ranking.rows_of(models, section)
        assert unexplained(rows, section.columns, told) == []
        dashes += sum(t == "–" for row in ranking.cells(rows, section.columns) for t, _ in row)
    assert dashes
    for text in says:
        assert any(text in line for line in told), f"{text}: {told}"


def test_differences_are_paired_and_corrected(compared):
    _, result = compared
    quality = {(d["first"], d["second"]): d for d in leading(result["differences"]) if d["task"] == "quality"}
    assert len(quality) == 3
    pair = quality["good", "noise"]
    models = result["models"]
    assert pair["estimate"] == pytest.approx(models["good"]["quality"]["srcc"] - models["noise"]["quality"]["srcc"])
    assert pair["low"] <= pair["estimate"] <= pair["high"]
    assert pair["few"]
    own = [(m[task], task) for m in models.values() for task in ("quality", "importance", "distortion") if task in m]
    assert all(m["intervals"][key]["estimate"] == pytest.approx(m[key]) for m, _ in own for key in m["intervals"])
    assert {key for m, _ in own for key in m["intervals"]} == {*comparison.SCALE, "over_whole_image"}


def test_the_same_predictions_differ_by_nothing(compared):
    """Of four sources; `good` and `noise` differ in quality alone, and that predictions are equal is no estimate."""
    out, result = compared
    same = [d for d in result["differences"] if d["same_predictions"]]
    drawn = {task: result["models"]["good"][task]["intervals"] for task in ("importance", "distortion", "severity")}
    assert [(d["task"], d["statistic"]) for d in same] == [(task, key) for task, own in drawn.items() for key in own]
    assert {(d["first"], d["second"]) for d in same} == {("good", "noise")}
    assert {tuple(d[k] for k in ("estimate", "low", "high", "se", "p", "p_holm", "few", "untested", "ahead")) for d in same} == {
        (0, 0, 0, 0, 1, 1, False, False, None)
    }
    assert (out / "report.html").read_text().count("<td>the same predictions</td>") == len(same) == 11
    models = {n: result["models"][n] | {"quality": {}} for n in ("good", "noise")}
    assert headline(result | {"models": models}).startswith(
        "noise and good have the same predictions of importance, with the highest SRCC, "
    )


def test_each_statistic_has_a_fold_of_its_own(compared):
    out, result = compared
    page = (out / "report.html").read_text()
    first, _, folds = page[page.index("<h2>Differences</h2>") :].partition("<h3>Differences of the other statistics</h3>")
    assert "All 6 differences of SRCC and macro-F1" in first
    assert first.count('<td class="ahead">–</td>') == 6
    found = families(result["differences"])
    assert {key for _, key in found} == {*comparison.SCALE} - {"srcc", "macro_f1"}
    for (task, key), rows in found.items():
        many = "1 difference" if len(rows) == 1 else f"{len(rows)} differences"
        assert f"<summary>{task.capitalize()}, {WORDS[key]}: {many}, none told from chance</summary>" in folds
    assert folds.count('<td class="ahead">–</td>') == sum(map(len, found.values()))
    assert [(d["first"], d["second"]) for d in found["quality", "rmse"]] == [("good", "noise")]  # the file is on another scale
    assert folds.count("Less is better") == sum(key == "rmse" for _, key in found) == 2
    table = pd.read_csv(out / "differences.csv")
    assert list(zip(table["task"], table["statistic"], strict=True)) == [(d["task"], d["statistic"]) for d in result["differences"]]


def test_few_sources_have_no_p_value(compared):
    out, result = compared
    assert {(d["p"], d["p_holm"]) for d in result["differences"] if not d["same_predictions"]} == {(None, None)}
    assert "no p-value is given" in (out / "report.html").read_text()
    assert headline(result).startswith("theirs & co has the highest SRCC of quality, ")
    assert headline(result).endswith("not told from chance: too few sources.")


@pytest.mark.parametrize(
    ("p", "said"),
    [
        (1e-9, "one leads on quality with SRCC 0.700; two is 0.100 behind (p < 0.001 after Holm's correction)."),
        (0.049, "one leads on quality with SRCC 0.700; two is 0.100 behind (p = 0.049 after Holm's correction)."),
        (0.05, "one has the highest SRCC of quality, 0.700; two is 0.100 behind, which is not told from chance: p = 0.050 after Holm's"),
    ],
)
def test_only_what_is_told_from_chance_is_a_lead(p, said):
    models = {"one": {"quality": {"srcc": 0.7}}, "two": {"quality": {"srcc": 0.6}}}
    pair = {"task": "quality", "statistic": "srcc", "first": "two", "second": "one", "estimate": -0.1, "p_holm": p}
    pair |= {"few": False, "same_predictions": False}
    other = pair | {"statistic": "krcc", "estimate": 0.3, "p_holm": 0.5, "same_predictions": True}
    assert headline({"models": models, "differences": [other, pair]}).startswith(said)


@pytest.fixture
def _no_page(monkeypatch):
    """Figures take seconds, and one page is enough for all tests."""
    monkeypatch.setattr(comparison, "write_page", lambda *_: None)


@pytest.mark.usefixtures("_no_page")
def test_p_values_of_ten_sources_are_corrected(three, tmp_path):
    more = [replace(e, table=e.table.assign(source=e.table["image"])) for e in three]
    result = compare(more, tmp_path, draws=60)
    assert all(1 >= d["p_holm"] >= d["p"] > 0 for d in result["differences"])
    own = [d for d in leading(result["differences"]) if d["task"] == "quality"]
    assert [d["p_holm"] for d in own] == holm([d["p"] for d in own])  # of this task alone
    assert max(d["p_holm"] / d["p"] for d in own) == pytest.approx(3)
    assert all((d["p"] < 0.05) == (not d["low"] <= 0 <= d["high"]) for d in result["differences"])
    assert "after Holm's correction" in headline(result)


@pytest.mark.usefixtures("_no_page")
def test_splits_are_kept_and_can_be_used_again(compared, three, tmp_path):
    out, result = compared
    kept = read_splits(out / "splits.json")
    assert result["splits"]["hash"] == kept.hash
    assert result["models"]["theirs & co"]["quality"]["splits"]["srcc"] == pytest.approx(1)
    assert "## Medians over splits" in (out / "comparison.md").read_text()
    other = draw_splits(kept.sources, repeats=2, seed=5)
    again = compare(three, tmp_path, draws=2, splits=other)
    assert again["splits"] == {"hash": other.hash, "repeats": 2, "seed": 5}
    with pytest.raises(ValueError, match="these splits are of other data"):
        compare(three, tmp_path, draws=2, splits=draw_splits("abcd"))


@pytest.mark.usefixtures("_no_page")
def test_three_sources_are_not_split(three, tmp_path):
    few = [replace(e, table=e.table[e.table["source"] != "source-0"]) for e in three]
    result = compare(few, tmp_path, draws=2)
    assert result["splits"] is None
    assert not (tmp_path / "splits.json").exists()
    assert "Medians over splits" not in (tmp_path / "comparison.md").read_text()


def test_the_files_are_whole_and_the_page_stands_alone(compared):
    out, result = compared
    assert json.loads((out / "comparison.json").read_text()) == result
    assert list(pd.read_csv(out / "comparison.csv")["model"]) == list(result["models"])
    assert len(pd.read_csv(out / "differences.csv")) == len(result["differences"])
    assert r"theirs \& co" in (out / "comparison.tex").read_text()
    page = Page()
    page.feed((out / "report.html").read_text())
    page.close()
    assert not page.open
    assert all(a.startswith("data:image/") for a in page.addresses)
    assert "Where they disagree" in page.text
    assert all(a.startswith(("data:image/webp", "data:image/jpeg")) for a in page.addresses)


def test_the_page_tells_which_classes_are_taken_for_which(compared):
    out, result = compared
    page = (out / "report.html").read_text()
    assert page.count('<figure class="confusion">') == 4  # types and severities of the two that were asked
    counts = pd.DataFrame(result["models"]["noise"]["distortion"]["confusion"])
    share = counts.loc[1, 1] / counts.loc[1].sum()
    assert f'<td style="--share:{share:.2f}" class="strong">{100 * share:.0f} %<small>{counts.loc[1, 1]}</small></td>' in page


def test_the_best_is_bold_and_the_second_underlined():
    models = {"x": {"a": 0.5, "b": 1.0}, "y": {"a": 0.7, "b": 3.0}, "z": {"a": 0.1}}
    marked = ranking.cells(models, COLUMNS)
    assert marked == [[("0.500", 2), ("1.0", 1)], [("0.700", 1), ("3.0", 2)], [("0.100", 0), ("–", 0)]]
    assert "| y | **0.700** | <u>3.0</u> |" in ranking.markdown(models, COLUMNS)
    assert r"y & \textbf{0.700} & \underline{3.0} \\" in ranking.latex(models, COLUMNS)
    assert "0.700*" in ranking.console(models, COLUMNS)
    assert ranking.value({"a": math.nan}, ("a",)) is None


def test_no_table_is_wider_than_a_page(compared):
    """Ten columns beside the names are what 1,200 pixels hold without scrolling."""
    sections = ranking.sections(compared[1]["models"], SCORES)
    assert list(sections)[:2] == ["Overview", "Quality: order"]
    assert {"Quality: values", "Quality by distortion", "Severity", "Medians over splits", "Cost, regions and ties"} < set(sections)
    assert max(len(s.columns) for s in sections.values()) == len(ranking.HEADLINE) == 10
    many = {"x": {"quality": {"by_type": {f"type {i}": {"srcc": 0.5, "n": 10} for i in range(10)}}}}
    found = ranking.sections(many, SCORES)
    assert [len(found[f"Quality by distortion, {n} of 2"].columns) for n in (1, 2)] == [8, 2]
    assert not any(title.startswith("Importance") for title in found)


def test_what_depends_on_the_device_is_ranked_within_one():
    columns = [ranking.Column("ms", ("ms",), "low", 1, ("device",))]
    models = {"x": {"ms": 1.0, "device": "a"}, "y": {"ms": 2.0, "device": "a"}, "z": {"device": "b"}}
    assert ranking.cells(models, columns) == [[("1.0", 1)], [("2.0", 2)], [("–", 0)]]
    assert ranking.cells(models | {"z": {"ms": 3.0, "device": "b"}}, columns) == [[("1.0", 0)], [("2.0", 0)], [("3.0", 0)]]
    assert all(c.within == ("device",) for c in ranking.COST if c.title in ("ms/region", "Peak GiB"))


@pytest.mark.usefixtures("_no_page")
def test_what_the_models_were_trained_on_is_told(three, tmp_path):
    """Beside what else repeats a training, and that it differs is a note."""
    told = {"trained_on": "roi_folder a|b", "seed": 1234, "commit": "abc-dirty", "steps": 1500}
    mine = replace(three[0], **told, trained_data="1" * 20)
    other = replace(three[1], trained_on="roi_folder a|b", trained_data="2" * 20)
    result = compare([mine, other, three[2]], tmp_path, draws=2)
    assert {k: result["models"]["good"][k] for k in told} == told
    table = section(tmp_path, "Training")
    assert "| good | roi_folder a\\|b | 1,500 | 1234 | abc-dirty |\n" in table
    assert "| theirs & co | – | – | – | – |\n" in table
    assert r"good & roi\_folder a|b & 1,500 & 1234 & abc-dirty \\" in (tmp_path / "comparison.tex").read_text()
    note = "the models were trained on different data: roi_folder a|b 11111111 (good); roi_folder a|b 22222222 (noise)"
    assert note in result["notes"]
    explained = ranking.explained(result["models"], SCORES)
    assert "training: not known of theirs & co, which came as a file" in explained
    assert "training: seed not known of noise, whose folder does not tell" in explained
    same = [mine, replace(other, trained_data=mine.trained_data), replace(three[2], trained_on=None)]
    assert not [n for n in comparison.judge(same, draws=2)[0]["notes"] if "trained on different data" in n]


def test_a_run_tells_what_repeats_its_training(answers, tmp_path):
    answers.to_parquet(tmp_path / "scores.parquet")
    record = {"data": {"dataset": "roi_folder", "root": "x/mine", "fingerprint": "f"}, "seed": 3, "git": "abc"}
    (tmp_path / "run.json").write_text(json.dumps(record | {"evaluation": {"data": {"dataset": "photographs", "fingerprint": "g"}}}))
    (tmp_path / "config.yaml").write_text("trainer: {steps: 70}")
    found = read_run(tmp_path)
    assert (found.trained_on, found.trained_data, found.steps, found.seed, found.commit) == ("roi_folder mine", "f", 70, 3, "abc")
    (tmp_path / "config.yaml").unlink()
    assert read_run(tmp_path).steps is None
    assert read_run(tmp_path).notes == ()


def test_the_licence_of_a_scorer_is_a_note(answers, tmp_path):
    (tmp_path / "theirs").mkdir()
    answers.to_parquet(tmp_path / "theirs" / "scores.parquet")
    (tmp_path / "theirs" / "run.json").write_text(json.dumps({"licence": "not for sale"}))
    found = comparison.judge([Entry("good", answers), read_run(tmp_path / "theirs")], draws=2)[0]
    assert "theirs: its scorer's licence is not for sale" in found["notes"]


def test_what_cannot_be_compared_is_refused(three, answers, tmp_path):
    with pytest.raises(ValueError, match="1 entries: a comparison needs at least two"):
        compare(three[:1], tmp_path)
    with pytest.raises(ValueError, match="two entries are named 'good'"):
        align([three[0], three[0]])
    with pytest.raises(ValueError, match="no region of good was scored by another of"):
        align([three[0], Entry("else", answers.assign(id=[f"other-{i}" for i in range(48)]))])
    with pytest.raises(ValueError, match=r"good and moved have different quality labels for 48 regions, the first is 'region-0'"):
        align([three[0], Entry("moved", answers.assign(quality=answers["quality"] + 0.1))])
    with pytest.raises(ValueError, match=r"has no scores.parquet: measure it first"):
        read_run(tmp_path)
    (tmp_path / "theirs.txt").touch()
    with pytest.raises(ValueError, match=r"theirs.txt is no folder: give those of runs, and predictions as files whose names end in .csv"):
        read_run(tmp_path / "theirs.txt")


def test_who_is_missing_is_named_and_figures_of_who_left_are_removed(three, tmp_path):
    known = tmp_path / "plots" / "mine.png"
    known.parent.mkdir()
    known.touch()
    (tmp_path / "plots" / "confusion_gone.png").touch()
    result = compare(three[:2], tmp_path, draws=20, absent={"broken <b>": "failed with status 1"})
    assert result["absent"] == {"broken <b>": "failed with status 1"}
    page = (tmp_path / "report.html").read_text()
    assert "1 of 3 models are missing: broken &lt;b&gt; (failed with status 1)." in page
    plots = {p.stem for p in (tmp_path / "plots").iterdir()}
    assert {"mine", "types_good", "severities_good"} <= plots
    assert "confusion_gone" not in plots
