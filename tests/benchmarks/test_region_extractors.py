"""The benchmark at a tiny size: one call gives what a loop gives, for every extractor."""

import importlib.util

import pytest
import torch

from components.batch import Pyramid
from components.region_extractors.base import REGION_EXTRACTORS
from tests.conftest import ROOT

spec = importlib.util.spec_from_file_location("region_extractors", ROOT / "benchmarks" / "region_extractors.py")
benchmark = importlib.util.module_from_spec(spec)
spec.loader.exec_module(benchmark)


@pytest.mark.parametrize("name", REGION_EXTRACTORS.names())
def test_one_call_gives_what_the_loop_gives(name):
    channels, sizes = (4, 6), ((16, 16), (8, 8))
    extractor = REGION_EXTRACTORS.build({"plugin": name, **REGION_EXTRACTORS.get(name).tiny()}, channels, sizes, 12).eval()
    pyramid = Pyramid(tuple(torch.randn(1, c, *size) for c, size in zip(channels, sizes, strict=True)))
    row = benchmark.compare(extractor, pyramid, benchmark.regions_of(3, 64, extractor.crop_size), turns=1)
    assert row["apart"] < 1e-5
    assert min(row.values()) >= 0 < row["loop"]
