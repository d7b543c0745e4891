"""Paths where nothing is."""

from pathlib import Path

import pytest

from evaluation.nowhere import SHOWN, nothing_at


def test_what_lies_there_is_told_and_what_was_meant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("mfe.csv", "pooled.csv", "notes.txt"):
        (tmp_path / name).touch()

    def said(path: str) -> str:
        return str(nothing_at(Path(path), "CSV files", lambda p: p.suffix == ".csv"))

    here = f"{tmp_path} holds the CSV files: mfe.csv, pooled.csv"
    assert said("mfc.csv") == f"mfc.csv does not exist (looked for {tmp_path}/mfc.csv). Did you mean mfe.csv? {here}"
    assert said("mfe") == f"mfe does not exist (looked for {tmp_path}/mfe). Did you mean mfe.csv? {here}"
    assert said("unlike") == f"unlike does not exist (looked for {tmp_path}/unlike). {here}"
    assert said("a/b.csv") == f"a/b.csv does not exist (looked for {tmp_path}/a/b.csv), nor does a. {tmp_path} holds no folders"
    for number in range(SHOWN + 1):
        (tmp_path / f"m{number}.csv").touch()
    assert said("unlike").endswith(", 3 more")


@pytest.mark.parametrize("path", ["nowhere", "/nowhere/at/all"])
def test_every_path_has_a_folder_above_it(path):
    assert str(nothing_at(Path(path), "runs", lambda p: False)).startswith(f"{path} does not exist")
