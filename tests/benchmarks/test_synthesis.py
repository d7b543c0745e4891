"""The benchmark at a tiny size: data are made in both modes, shares are whole, and the two ways to importance agree."""

import importlib.util
import re

import numpy as np
import PIL.Image
import pytest

from datamodules.procedural import dead_leaves
from tests.conftest import ROOT

spec = importlib.util.spec_from_file_location("synthesis", ROOT / "benchmarks" / "synthesis.py")
benchmark = importlib.util.module_from_spec(spec)
spec.loader.exec_module(benchmark)


@pytest.fixture
def photographs(tmp_path):
    for n in range(2):
        PIL.Image.fromarray(dead_leaves(48, np.random.default_rng(n))).save(tmp_path / f"{n}.png")
    return tmp_path


def test_it_says_how_fast_data_are_made_and_where_the_time_goes(photographs, capsys):
    benchmark.main([str(photographs), "--size", "32", "--images", "3"])
    said = capsys.readouterr().out.splitlines()
    made = {line.partition(":")[0]: line for line in said if "regions/s" in line}
    assert list(made) == ["mixed, inline", "mixed, several=3, inline", "mixed, 2 processes", "seagull_100w of one photograph, inline"]
    for title, line in made.items():
        assert re.search(rf": {120 if 'seagull' in title else 3} images, [\d.]+ images/s, \d+ regions/s", line)
        assert ("by CPU time" in line) == ("inline" in title)
        shares = dict(re.findall(r"(\w+) (\d+)%", line))
        assert set(shares) == {"decoding", "regions", "distorting", "labelling", "encoding"}
        assert sum(map(int, shares.values())) == pytest.approx(100, abs=3)
    apart = re.search(r"at most (\S+) apart", said[-1])
    assert float(apart[1]) <= 1e-6


def test_the_rates_are_of_what_was_made(photographs):
    data = benchmark.made(photographs, "mixed", mode="mixed", images=3, size=32, engine={"plugin": "inline"})
    assert data["counts"]["images"] == 3
    assert data["recipe"]["size"] == 32
    assert all(seconds > 0 for seconds in data["seconds"].values())
    assert benchmark.importance(photographs / "0.png", 48) <= 1e-6
