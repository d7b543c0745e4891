"""The benchmark at a tiny size: what it compares reads the same images, and its ratios are those of its rates."""

import importlib.util
import re

import pytest
import torch

from tests.conftest import ROOT

spec = importlib.util.spec_from_file_location("data_loading", ROOT / "benchmarks" / "data_loading.py")
benchmark = importlib.util.module_from_spec(spec)
spec.loader.exec_module(benchmark)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    tiny = {"ROWS": 12, "GROUP": 4, "IMAGES": 4, "REGIONS": 3, "HEIGHT": 64, "WIDTH": 96, "ROUNDS": 1}
    for name, value in {**tiny, "CASES": ((32, 0, 3), (32, 8, 2))}.items():
        monkeypatch.setattr(benchmark, name, value)


def test_all_read_the_same_images_and_a_batch_has_all_regions(tmp_path):
    paths = benchmark.write_data(tmp_path)
    loops = benchmark.loops(tmp_path, paths, 32, 8, 2)
    assert list((tmp_path / "cache" / "rows").glob("*.arrow"))  # rows come out of copies
    images = [9, 2, 5, 11]
    decoded, resized, samples, batch = (loops[name](images) for name in ("decode", "resize", "read", "batch"))
    assert all(torch.equal(d, s.image) for d, s in zip(decoded, samples, strict=True))
    assert torch.equal(torch.stack(resized), batch.images)
    assert batch.regions.masks.shape[1:] == (2, 32, 32)
    assert batch.regions.crops.shape[-2:] == (8, 8)
    assert batch.labels.quality.isfinite().all()


def test_it_says_what_is_ours(capsys):
    threads = torch.get_num_threads()
    benchmark.main()
    torch.set_num_threads(threads)
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in said] == ["encoder 32, crops none", "encoder 32, crops 8"]
    for line in said:
        rates = {name: float(rate) for name, rate in re.findall(r"(\w+) ([\d.]+)/s", line)}
        read, batch = (float(share) / 100 for share in re.findall(r"(-?[\d.]+)% over", line))
        assert read == pytest.approx(rates["decode"] / rates["read"] - 1, abs=0.01)
        assert batch == pytest.approx(rates["resize"] / rates["batch"] - 1, abs=0.01)
