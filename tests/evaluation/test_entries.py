"""Other people's predictions, as a CSV file."""

import pandas as pd
import pytest

from evaluation.entries import Entry, align, is_predictions, read_csv


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,score\na,1", r"lacks the columns \['region'\]"),
        ("image,region,score,task\nimage-0,region-0,1,beauty", "has the task 'beauty': allowed are"),
        ("image,region,score\nimage-0,region-0,1\nimage-0,region-0,2", "scores 1 regions twice, the first is 'region-0'"),
        ("image,region,score\nimage-0,region-0,1\nimage-0,region-99,1", r"1 of 2 regions are not among those .* the first is 'region-99'"),
        ("image,region,score\nimage-3,region-0,1", "the first is 'region-0' of image 'image-3'"),
        (
            "image;region;score\nimage-0;region-0;0,5",
            r"separates its columns by ';', as its first line 'image;region;score' says: commas are",
        ),
        ("image\tregion\tscore\nimage-0\tregion-0\t0.5", r"separates its columns by '\\t'"),
        ("image,region,score\nimage-0,region-0,0,5", "has more fields in a row than names in its first line"),
        ("image,region,score\nimage-0,region-0,1\nimage-0,region-1,0,5", "line 3, saw 4: each row needs as many fields"),
        ("image,region,score\n\n", "has no rows below its first line: each region of a run's scores.parquet needs one"),
        ("", "theirs.csv is empty: its first line names the columns image, region"),
        ("image,region,score\ncaf\u00e9,region-0,1", "is not UTF-8: its byte 22 is 0xe9; if it is Latin-1, pandas.read_csv"),
    ],
)
def test_files_of_others_are_checked(answers, tmp_path, text, message):
    (tmp_path / "theirs.csv").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=message):
        read_csv(tmp_path / "theirs.csv", {"photographs": answers})


def test_a_score_that_is_no_number_counts_as_unparsed_and_is_told_with_its_line(answers, tmp_path):
    lines = [
        "image-0,region-0,0.5,quality",
        "",
        "image-0,region-1,n/a,quality",
        "image-0,region-2,,quality",
        "image-0,region-1,inf,importance",
    ]
    (tmp_path / "theirs.csv").write_text("\n".join(["\ufeffimage,region,score,task", *lines, "", ""]))
    (theirs,) = read_csv(tmp_path / "theirs.csv", {"photographs": answers}).values()
    assert theirs.table["quality_parsed"].tolist() == [True, False, False]
    assert theirs.table["quality_pred"][0] == 0.5
    assert set(theirs.notes) == {
        "2 of 3 scores of quality are no finite numbers, the first is 'n/a' in line 4: they count as unparsed",
        "1 of 1 scores of importance are no finite numbers, the first is 'inf' in line 6: they count as unparsed",
    }


def test_a_region_may_be_named_as_in_a_run(answers, tmp_path):
    answers[["image", "id"]].assign(score=1.0).to_csv(tmp_path / "theirs.csv", index=False)
    (theirs,) = read_csv(tmp_path / "theirs.csv", {"photographs": answers}).values()
    assert list(theirs.table["id"]) == list(answers["id"])
    assert theirs.notes == ()


def test_blanks_behind_commas_and_capitals_of_the_ending_are_no_fault(answers, tmp_path):
    (tmp_path / "THEIRS.CSV").write_text("image, region, score \nimage-0, region-0, 0.5\n")
    (theirs,) = read_csv(tmp_path / "THEIRS.CSV", {"photographs": answers}).values()
    assert theirs.table["quality_pred"].tolist() == [0.5]
    assert is_predictions(tmp_path / "THEIRS.CSV")


def test_names_are_text_whatever_they_look_like(answers, tmp_path):
    named = answers.assign(image="NA", id=["0" * (i + 1) for i in range(48)])
    named[["image", "id"]].assign(score=1.0).to_csv(tmp_path / "theirs.csv", index=False)
    (theirs,) = read_csv(tmp_path / "theirs.csv", {"photographs": named}).values()
    assert list(theirs.table["id"]) == list(named["id"])


def test_a_file_joins_each_data_set_that_it_has_rows_of(answers, tmp_path):
    """Two data sets share names of regions: a column tells which is meant, and is asked for only where names do not tell."""
    moved = answers.assign(id="mine-" + answers["id"], image="mine-" + answers["image"])
    path = tmp_path / "theirs.csv"
    rows = pd.concat([answers[:40], moved[40:]])
    rows[["image", "id"]].rename(columns={"id": "region"}).assign(score=rows["quality"]).to_csv(path, index=False)
    found = read_csv(path, {"photographs": answers, "mine": moved, "else": moved.assign(id=moved["id"] + "x")})
    assert {n: (e.name, list(e.table["id"])) for n, e in found.items()} == {
        "photographs": ("theirs", list(answers["id"][:40])),
        "mine": ("theirs", list(moved["id"][40:])),
    }
    data = {"photographs": answers, "mine": moved, "labelled again": moved.assign(quality=0.5)}
    with pytest.raises(
        ValueError, match=r"8 of 48 regions are in several .* 'mine-region-40', in \['mine', 'labelled again'\]: add a column"
    ):
        read_csv(path, data)
    told = pd.read_csv(path).assign(data=[None] * 40 + ["labelled again"] * 8)
    told.to_csv(path, index=False)
    assert {n: len(e.table) for n, e in read_csv(path, data).items()} == {"photographs": 40, "labelled again": 8}
    both = pd.concat([told, told[40:].assign(data="mine", score=0.1)])
    both.to_csv(path, index=False)
    assert read_csv(path, data)["mine"].table["quality_pred"].tolist() == [0.1] * 8
    told.assign(data="elsewhere").to_csv(path, index=False)
    with pytest.raises(
        ValueError, match=r"has the data set 'elsewhere': the runs were measured on \['photographs', 'mine', 'labelled again'\]"
    ):
        read_csv(path, data)


def test_a_region_without_a_row_was_not_asked(answers, tmp_path):
    lines = [f"{i},{r},0.5,quality" for i, r in zip(answers["image"], answers["id"], strict=True)]
    lines += [f"{i},{r},0.5,importance" for i, r in zip(answers["image"][:30], answers["id"], strict=False)]
    (tmp_path / "theirs.csv").write_text("\n".join(["image,region,score,task", *lines]))
    (theirs,) = read_csv(tmp_path / "theirs.csv", {"photographs": answers}).values()
    _, told = align([Entry("good", answers), theirs])
    assert {t: c["unparsed"] for t, c in told["coverage"]["theirs"].items()} == {"quality": 0, "importance": 0}
    assert {t: c["skipped"] for t, c in told["coverage"]["theirs"].items()} == {"quality": 0, "importance": 18}
    assert {t: c["skipped"] for t, c in told["coverage"]["good"].items()} == {"quality": 0, "importance": 0, "distortion": 0}
