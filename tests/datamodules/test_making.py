from __future__ import annotations

import json
from pathlib import Path

import pytest

from components.registry import Part
from datamodules.engines.base import ENGINES, Clock
from datamodules.making import file_hash, identity, make_all, write_atomically, write_json
from datamodules.tables import RecordWriter
from tests.datamodules.engines.counting import Counting

INLINE = ENGINES.build({"plugin": "inline"})


def test_only_what_is_missing_is_made_and_the_bar_counts_images(tmp_path, capsys):
    (tmp_path / "2.txt").write_text("made before")
    spent = make_all(Counting(tmp_path), INLINE, "counting")
    assert (tmp_path / "2.txt").read_text() == "made before"
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{s}.txt" for s in range(5)]
    assert spent == {"squaring": 4.0}
    said = capsys.readouterr()
    assert "15/15" in said.err
    assert "counting" in said.err
    assert said.out.splitlines() == ["skipped 1 (1 images): odd", "skipped 3 (1 images): odd"]


def test_nothing_missing_shows_nothing(tmp_path, capsys):
    make_all(Counting(tmp_path), INLINE, "counting")
    capsys.readouterr()
    assert make_all(Counting(tmp_path), INLINE, "counting") == {}
    assert capsys.readouterr() == ("", "")


def test_after_an_error_what_was_made_is_there(tmp_path):
    with pytest.raises(LookupError):
        make_all(Counting(tmp_path, broken=3), INLINE, "counting")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0.txt", "1.txt", "2.txt"]


def test_a_clock_adds_up_by_stage():
    clock = Clock()
    for stage in ("a", "b", "a"):
        with clock(stage):
            pass
    assert list(clock) == ["a", "b"]
    assert all(s > 0 for s in clock.values())


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "new" / "a.bin"
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "no bytes")
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_two_writers_of_one_process_number_do_not_meet(tmp_path, monkeypatch):
    """Containers on one shared folder count their processes from 1 each."""
    replaced, replace = [], Path.replace

    def meanwhile(draft, target):
        if not replaced:
            replaced.append(draft)
            write_atomically(target, b"same")
        return replace(draft, target)

    monkeypatch.setattr(Path, "replace", meanwhile)
    write_atomically(tmp_path / "a.bin", b"same")
    with RecordWriter(tmp_path / "part.parquet") as first, RecordWriter(tmp_path / "part.parquet") as second:
        assert first._draft != second._draft
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.bin", "part.parquet"]


def test_json_keeps_order_and_refuses_numbers_that_are_none(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": "ü"})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n "b": 1,\n "a": "ü"\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", float("nan"))
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["b"] == 1


class Plugin:
    version, licence = "7", "free"

    def __init__(self, *, weights: str = "", depth: int = 3) -> None:
        raise AssertionError("an identity needs no instance")


def test_an_identity_holds_options_versions_and_the_contents_of_files(tmp_path):
    weights = tmp_path / "w.bin"
    weights.write_bytes(b"abc")
    found = identity(Part(Plugin, weights=str(weights)))
    assert found["depth"] == 3
    assert (found["version"], found["licence"]) == ("7", "free")
    assert found["weights (sha256)"] == file_hash(weights)[:16] == "ba7816bf8f01cfea"
    assert "weights (sha256)" not in identity(Part(Plugin))
