"""The benchmark at a tiny size: the command indexes all that was generated, and what is said of it adds up."""

import importlib.util
import re
import tempfile

import pytest

from datamodules.datasets.indexed import Indexed
from tests.conftest import ROOT

spec = importlib.util.spec_from_file_location("data_index", ROOT / "benchmarks" / "data_index.py")
benchmark = importlib.util.module_from_spec(spec)
spec.loader.exec_module(benchmark)


def test_the_command_is_measured_on_all_that_was_generated(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(benchmark, "REGIONS", 3)
    monkeypatch.setattr(benchmark, "SETTINGS", 2)
    readable, watched = [], benchmark.watched

    def looked(command):
        found = watched(command)
        if "index" in command:
            readable.extend(Indexed(root=command[-1], cache="").rows.readable)
        return found

    monkeypatch.setattr(benchmark, "watched", looked)
    benchmark.main(["0.05"])
    found = {key: float(value.replace(",", "")) for key, value in re.findall(r"(\w+) ([\d.,]+)", capsys.readouterr().out)}
    assert found["scores_mib"] == pytest.approx(0.05, abs=0.01)
    assert found["archives"] == 6 * 2 + 1
    assert found["images"] % (6 * 2) == 0 < found["images"]
    assert found["regions"] == 3 * found["images"]
    assert len(readable) == found["images"]
    assert all(readable)  # each is in its archive
    assert min(found["cpu_seconds"], found["start_cpu_seconds"]) > 0
    assert found["peak_mib"] > found["start_peak_mib"] > 50
    assert not list(tmp_path.iterdir())


def test_a_command_that_fails_is_told():
    with pytest.raises(RuntimeError, match=r"ended with status 1: .*no such thing"):
        benchmark.watched(["-c", "raise SystemExit('no such thing')"])
