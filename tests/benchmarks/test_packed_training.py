"""The benchmark at a tiny size: what it compares is the same, and its figures add up."""

import importlib.util

import pytest
import torch

from components.llm_adapters.base import LLM_ADAPTERS
from components.scorers.base import SCORERS
from tests.conftest import ROOT

spec = importlib.util.spec_from_file_location("packed_training", ROOT / "benchmarks" / "packed_training.py")
benchmark = importlib.util.module_from_spec(spec)
spec.loader.exec_module(benchmark)


def test_both_sides_are_the_same_training():
    llm = LLM_ADAPTERS.build({"plugin": "tiny_causal", "width": 32, "layers": 2, "mlp": 48, "vocabulary": 2048})
    row = benchmark.compare(llm, 5, 2, image_tokens=16)
    assert row["packed"] == 16 + 85 + 10 * 20
    assert row["apart"] == 10 * (16 + 85 + 20)
    assert row["token ratio"] == row["apart"] / row["packed"]
    assert row["time ratio"] > 0
    assert row["loss apart"] < 1e-5
    assert row["gradients apart"] < 1e-4


def test_the_step_that_is_timed_on_a_card():
    torch.manual_seed(0)
    scorer = SCORERS.build({"plugin": "roi_vlm", **SCORERS.get("roi_vlm").tiny()}).train()
    rows = list(benchmark.card(scorer, 3, torch.device("cpu"), steps=1, together=2, precision=torch.bfloat16))
    assert [row["packed"] for row in rows] == [True, False]
    assert all(row["seconds"] > 0 and row["regions/s"] == 3 / row["seconds"] and row["TFLOP/s"] > 0 for row in rows)
    assert rows[0]["TFLOP/s"] * rows[0]["seconds"] == pytest.approx(rows[1]["TFLOP/s"] * rows[1]["seconds"])


def test_the_published_composition_is_all_random():
    with torch.device("meta"):
        scorer = SCORERS.build(benchmark.published())
    assert scorer.llm.quantization == "nf4"
    assert not scorer.llm.has_weights
    assert not any(p.requires_grad for p in scorer.vision_encoder.parameters())
    arithmetic = benchmark.arithmetic(scorer, benchmark.batch_of(scorer, 2))
    tokens = scorer.pack(benchmark.batch_of(scorer, 2), scorer._image_tokens).ids.numel()
    assert arithmetic == pytest.approx(tokens * (4 * 6.476e9 + 6 * 3.2e8), rel=0.05)  # 6.476e9 in the linear maps of Vicuna-7B's blocks


def test_without_a_card(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="--gpu: there is no CUDA device here"):
        benchmark.main(["--gpu"])
