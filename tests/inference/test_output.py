"""The file of a prediction: any form, whole or not there, whatever the number of rows, continued after a kill."""

import json
import os
import tracemalloc

import pandas as pd
import pyarrow.parquet as pq
import pytest

from components.tasks import RoiScore
from inference import output
from inference.output import Output
from inference.rows import Row

TASKS = ("quality", "distortion")


def rows(image, count=3, bad=()):
    answer = {
        "quality": RoiScore("quality", 0.5, 0.1, "The quality is fair."),
        "distortion": RoiScore("distortion", text="With minor blur distortions.", distortions=(("blur", "minor"),)),
    }
    return [
        Row(image, str(n), "box", error="empty") if n in bad else Row(image, str(n), "box", (n, 2, 3, 4), 0.25, answer)
        for n in range(count)
    ]


def written(path, images, finish=True, **options):
    out = Output(path, TASKS, {"model": 1}, **options)
    for image in images:
        out.add(rows(image, bad=(1,)))
    if finish:
        out.finish(out.done)
    out.close()
    return out


@pytest.mark.parametrize("suffix", output.SUFFIXES)
def test_a_continued_file_is_the_same(tmp_path, suffix):
    whole = written(tmp_path / f"whole{suffix}", "abcd")
    part = written(tmp_path / f"part{suffix}", "ab", finish=False)
    with part.draft.open("a") as file:
        file.write('{"lines": [{"ima')  # a kill in the middle of a line
    rest = written(tmp_path / f"part{suffix}", "cd")
    assert (tmp_path / f"part{suffix}").read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()
    assert (
        (rest.done, rest.rows, rest.failed, rest.first_error)
        == (whole.done, whole.rows, whole.failed, whole.first_error)
        == (4, 12, 4, "empty")
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"part{suffix}", f"whole{suffix}"]


@pytest.mark.parametrize("group", [1, 5, 100])
def test_a_table_in_groups_is_the_same_table(tmp_path, monkeypatch, group):
    monkeypatch.setattr(output, "_GROUP", group)
    for suffix in output.SUFFIXES:
        written(tmp_path / f"s{suffix}", "abcd")
    table, as_csv = pd.read_parquet(tmp_path / "s.parquet"), pd.read_csv(tmp_path / "s.csv")
    lines = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    assert table["image"].tolist() == as_csv["image"].tolist() == [line["image"] for line in lines] == [i for i in "abcd" for _ in range(3)]
    assert (
        table["left"].isna().tolist()
        == as_csv["left"].isna().tolist()
        == [line["box"] is None for line in lines]
        == [False, True, False] * 4
    )


def test_what_is_not_known_is_null_and_a_clean_region_is_known(tmp_path):
    clean = {"quality": RoiScore("quality", 0.5), "distortion": RoiScore("distortion", text="No distortions.")}
    lost = {
        "quality": RoiScore("quality", None, None, "Who knows.", parsed=False),
        "distortion": RoiScore("distortion", text="?", parsed=False),
    }
    out = Output(tmp_path / "s.parquet", TASKS, {})
    out.add([Row("a", "clean", "box", (1, 2, 3, 4), 0.5, clean), Row("a", "lost", "box", (1, 2, 3, 4), 0.5, lost)])
    out.add([Row("a", "bad", "box", error="empty")])
    out.finish(2)
    first, second, third = pq.read_table(tmp_path / "s.parquet").to_pylist()
    assert (first["distortion"], first["distortion_text"], first["quality_std"], first["error"]) == ("", "No distortions.", None, None)
    assert (second["quality"], second["quality_text"], second["quality_parsed"], second["distortion"]) == (None, "Who knows.", False, None)
    assert {name: value for name, value in third.items() if value is not None} == {
        "image": "a",
        "region": "bad",
        "kind": "box",
        "error": "empty",
    }


def test_rows_do_not_stay_in_memory(tmp_path):
    out = Output(tmp_path / "s.parquet", TASKS, {})
    out.add(rows("first"))
    tracemalloc.start()
    for n in range(100):
        out.add(rows(f"{n}", 20))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 2000 * 100  # bytes: a row alone would be some thousands
    assert out.finish(101) == 2003


def test_what_came_meanwhile_is_not_replaced(tmp_path):
    out = written(tmp_path / "s.csv", "a", finish=False)
    (tmp_path / "s.csv").write_text("of another")
    with pytest.raises(FileExistsError, match=r"s\.csv is there already"):
        out.finish(1)
    assert (tmp_path / "s.csv").read_text() == "of another"
    assert out.draft.exists()
    written(tmp_path / "s.csv", "b", overwrite=True)
    assert pd.read_csv(tmp_path / "s.csv")["image"].tolist() == ["a"] * 3 + ["b"] * 3


def test_a_file_of_no_rows_has_its_columns(tmp_path):
    for suffix in (".csv", ".parquet"):
        Output(tmp_path / f"s{suffix}", TASKS, {}).finish(0)
    assert list(pd.read_parquet(tmp_path / "s.parquet").columns) == list(pd.read_csv(tmp_path / "s.csv").columns)


@pytest.mark.parametrize("pictures", [False, True])
def test_a_second_prediction_of_one_draft_is_refused(tmp_path, pictures):
    path = tmp_path / ("drawn" if pictures else "s.jsonl")
    other = "folder" if pictures else "--out"
    with Output(path, TASKS, {}, pictures=pictures) as first:
        first.add(rows("a"))
        for overwrite in (False, True):
            with pytest.raises(FileExistsError, match=rf"process {os.getpid()} on .* is writing {path}: .* choose another {other}"):
                Output(path, TASKS, {}, overwrite, pictures=pictures)
    with pytest.raises(FileExistsError, match="holds 1 images of another prediction"):
        Output(path, TASKS, {"another": 1}, pictures=pictures)  # which lets go of it
    last = Output(path, TASKS, {}, pictures=pictures)
    last.add(rows("b"))
    assert last.finish(2) == 6
    assert [p.name for p in tmp_path.iterdir()] == ["s.jsonl"] * (not pictures)


@pytest.mark.parametrize("change", ["less", "more", "cut"])
def test_no_file_is_written_from_a_part_nor_from_too_much(tmp_path, change):
    out = Output(tmp_path / "s.jsonl", TASKS, {})
    for image in "ab":
        out.add(rows(image))
    lines = out.draft.read_text().splitlines(keepends=True)
    out.draft.write_text("".join({"less": lines, "more": [*lines, lines[-1]], "cut": lines[:-1]}[change]))
    there = {"less": 2, "more": 3, "cut": 1}[change]
    wanted = 3 if change == "less" else 2
    with pytest.raises(ValueError, match=rf"holds {there} images, 2 were scored, and the prediction has {wanted}: .*delete it"):
        out.finish(wanted)
    assert out.draft.exists()
    assert not out.path.exists()


def test_a_draft_knows_what_was_not_drawn(tmp_path):
    with Output(tmp_path / "s.csv", TASKS, {}) as out:
        out.add(rows("a"), ["overlay", "map"])
        out.add(rows("b"), ["map"], "b: its overlay could not be drawn: full")
    with Output(tmp_path / "s.csv", TASKS, {}) as again:
        assert (again.undrawn, again.first_undrawn) == (1, "b: its overlay could not be drawn: full")
        assert again.drawn == {"overlay": 1, "map": 2}
    head, *lines = out.draft.read_text().splitlines()
    out.draft.write_text("".join(f"{line}\n" for line in [head, *(json.dumps({"rows": json.loads(line)["rows"]}) for line in lines)]))
    with Output(tmp_path / "s.csv", TASKS, {}) as earlier:  # a draft that says nothing of pictures
        assert (earlier.done, earlier.undrawn, earlier.drawn) == (2, 0, {"overlay": 2, "map": 2})
