"""The page's benchmark runs, and compares a first region with further ones."""

import importlib.util

from tests.conftest import ROOT
from tests.inference.page.models import engine

spec = importlib.util.spec_from_file_location("app_latency", ROOT / "benchmarks" / "app_latency.py")
benchmark = importlib.util.module_from_spec(spec)
spec.loader.exec_module(benchmark)


def test_it_says_what_a_further_region_takes(capsys):
    share = benchmark.measure("small", engine(), 0.5)
    assert share > 0
    told = capsys.readouterr().out
    assert "small, 866 x 577: first" in told
    assert f"{share:.3f} of the first" in told
