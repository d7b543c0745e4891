"""Features that are kept instead of pixels."""

import dataclasses

import pytest
import torch

from components.batch import Pyramid
from components.preprocess import Preprocess
from components.registry import ConfigError
from datamodules import remembered
from datamodules.collate import Collate
from datamodules.datasets.base import DATASETS
from datamodules.remembered import Remembered
from datamodules.roi_iqa import RoiIQA

PREPROCESS = Preprocess(16, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))


def precompute(batch):
    """The image's mean colour as a map of one cell."""
    pyramid = Pyramid((batch.images.mean((2, 3), keepdim=True).half(),))
    return dataclasses.replace(batch, images=batch.images.new_empty(len(batch.images), 3, 0, 0), pyramid=pyramid)


def data(**options):
    dataset = DATASETS.build({"plugin": "photographs", **DATASETS.get("photographs").tiny(), "turns": 2})
    return RoiIQA(dataset, PREPROCESS, 8, batch_size=2, steps=5, seed=0, **options)


def test_training_sees_the_same_batches():
    plain, kept = data(), data(eval_batch_size=5)
    kept.remember(precompute)
    for a, b in zip(plain.train_dataloader(), kept.train_dataloader(), strict=True):
        assert a.ids == b.ids
        assert b.images.shape == (2, 3, 0, 0)
        torch.testing.assert_close(b.pyramid.maps[0], precompute(a).pyramid.maps[0])
        for field in dataclasses.fields(a.regions):
            torch.testing.assert_close(getattr(a.regions, field.name), getattr(b.regions, field.name))
        torch.testing.assert_close(a.labels.quality, b.labels.quality, equal_nan=True)
        assert a.labels.distortions == b.labels.distortions


def test_validation_still_sees_pixels():
    kept = data()
    kept.remember(precompute)
    assert next(iter(kept.val_dataloader())).images.shape[-2:] == (16, 16)


def test_what_memory_will_not_hold_is_refused_after_the_first_batch(monkeypatch):
    monkeypatch.setattr(remembered, "ROOM", 1e-9)
    seen = []
    with pytest.raises(ConfigError, match=r"trainer.cache_features: 12 images of .* GiB are free: set it to disk or off, or lower"):
        Remembered(data().dataset.split("train"), Collate(PREPROCESS, 8), lambda b: seen.append(b) or precompute(b), 2)
    assert len(seen) == 1


def test_page_cache_is_not_taken_for_used_memory(monkeypatch, tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 16000000 kB\nMemFree: 500000 kB\nMemAvailable: 10000000 kB\n")
    monkeypatch.setattr(remembered, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(remembered, "CGROUP", tmp_path)
    assert remembered.available_memory() == 10_000_000 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert remembered.available_memory() == 10_000_000 * 1024
    (tmp_path / "memory.max").write_text("5000\n")
    assert remembered.available_memory() == 4000


def test_where_nothing_says_how_much_memory_there_is_nothing_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(remembered, "MEMINFO", tmp_path / "none")
    monkeypatch.setattr(remembered, "CGROUP", tmp_path)
    monkeypatch.setattr(remembered, "ROOM", 1e-9)
    assert remembered.available_memory() is None
    assert len(Remembered(data().dataset.split("val"), Collate(PREPROCESS, 8), precompute, 2)) > 0
