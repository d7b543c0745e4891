"""The benchmark at a tiny size: all that predict.py does is measured, and its rows are written."""

import csv
import importlib.util
import re

import torch

from components.scorers.base import SCORERS
from tests.conftest import ROOT

spec = importlib.util.spec_from_file_location("folder_throughput", ROOT / "benchmarks" / "folder_throughput.py")
benchmark = importlib.util.module_from_spec(spec)
spec.loader.exec_module(benchmark)


def scorer():
    torch.manual_seed(0)
    return SCORERS.build({"plugin": "pooled_mlp", **SCORERS.get("pooled_mlp").tiny()}).eval()


def test_every_mode_writes_the_rows_of_every_image(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "TOGETHER", 2)
    found = benchmark.measure(scorer(), tmp_path, 3)
    assert list(found) == ["defaults", "in turn", "one thread"]
    assert all(0 < model < wall for wall, model, _ in found.values())
    assert found["one thread"][2] == 1
    for mode in found:
        rows = [row for at in (0, 2) for row in csv.DictReader((tmp_path / f"{mode} {at}.csv").open())]
        assert [row["image"][-8:] for row in rows] == [f"{n:04}.jpg" for n in range(3) for _ in benchmark.BOXES]
        assert all(row["quality"] and not row["error"] for row in rows)


def test_pictures_of_every_sort_are_measured(tmp_path):
    found = benchmark.measure_pictures(scorer(), tmp_path, 1)
    assert list(found) == ["boxes", "boxes, --overlay", "--propose", "--propose --overlay", "--map"]
    assert all(0 < model < wall for wall, model, _ in found.values())
    for mode in ("boxes, --overlay", "--propose --overlay", "--map"):
        assert sorted(path.name for path in (tmp_path / mode).iterdir()) == ["0000.png"]


def test_it_says_how_fast_each_mode_is(capsys):
    threads = torch.get_num_threads()
    benchmark.main(["2"], scorer())
    said = capsys.readouterr().out
    assert re.findall(r"^(.*?) \(\d+ threads?\): [\d.]+ images", said, re.MULTILINE) == ["defaults", "in turn", "one thread"]
    assert "reading ahead: " in said
    assert torch.get_num_threads() == threads
