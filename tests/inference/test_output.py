"""The file of a prediction: any form, whole or not there, whatever the number of rows, continued after a kill."""

import json
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
        out.finish()
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
    out.finish()
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
    assert out.finish() == 2003


def test_what_came_meanwhile_is_not_replaced(tmp_path):
    out = written(tmp_path / "s.csv", "a", finish=False)
    (tmp_path / "s.csv").write_text("of another")
    with pytest.raises(FileExistsError, match=r"s\.csv is there already"):
        out.finish()
    assert (tmp_path / "s.csv").read_text() == "of another"
    assert out.draft.exists()
    written(tmp_path / "s.csv", "b", overwrite=True)
    assert pd.read_csv(tmp_path / "s.csv")["image"].tolist() == ["a"] * 3 + ["b"] * 3


def test_a_file_of_no_rows_has_its_columns(tmp_path):
    for suffix in (".csv", ".parquet"):
        Output(tmp_path / f"s{suffix}", TASKS, {}).finish()
    assert list(pd.read_parquet(tmp_path / "s.parquet").columns) == list(pd.read_csv(tmp_path / "s.csv").columns)
