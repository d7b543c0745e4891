"""Features that are kept on disk."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time

import pytest
import torch

from components.batch import Pyramid
from components.preprocess import Preprocess
from components.registry import ConfigError
from components.scorers.base import SCORERS
from components.vision_encoders.base import VISION_ENCODERS
from datamodules import features as kept
from datamodules.collate import Collate
from datamodules.datasets.base import DATASETS
from datamodules.features import Features, fill, fingerprint, open_features
from datamodules.roi_iqa import RoiIQA

PREPROCESS = Preprocess(16, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
COLLATE = Collate(PREPROCESS, 8)


def precompute(batch):
    """Two levels: the image's mean colour, and its upper left corner."""
    maps = (batch.images.mean((2, 3), keepdim=True).half(), batch.images[:, :2, :4, :5].half())
    return dataclasses.replace(batch, images=batch.images.new_empty(len(batch.images), 3, 0, 0), pyramid=Pyramid(maps))


def data(folder="", **options):
    dataset = DATASETS.build({"plugin": "photographs", **DATASETS.get("photographs").tiny(), "turns": 2, "cache": str(folder)})
    dataset.prepare()
    return RoiIQA(dataset, PREPROCESS, 8, batch_size=2, steps=5, seed=0, **options)


@pytest.fixture
def shards_of_five(monkeypatch):
    monkeypatch.setattr(kept, "SHARD", 5 * 2 * (3 + 2 * 4 * 5))


@pytest.fixture(scope="module")
def samples():
    return data().dataset.split("train")


def filled(folder, samples, see=precompute):
    features = open_features(folder, samples, COLLATE, see)
    fill(features, samples, COLLATE, see, batch_size=2)
    return features


@pytest.mark.usefixtures("shards_of_five")
def test_what_is_read_is_what_was_seen(tmp_path, samples):
    features = filled(tmp_path / "f", samples)
    assert features.shapes == ((3, 1, 1), (2, 4, 5))
    assert [len(features.images(s)) for s in range(3)] == [5, 5, 2]
    assert sorted(p.name for p in (tmp_path / "f").iterdir()) == ["000000.f16", "000001.f16", "000002.f16", "features.json"]
    for i in (11, 0, 4, 5):
        expected = precompute(COLLATE([samples[i]])).pyramid.maps
        for found, wanted in zip(features.read(i), expected, strict=True):
            assert found.dtype == torch.float16
            assert torch.equal(found, wanted[0])


@pytest.mark.usefixtures("shards_of_five")
def test_only_what_is_missing_is_made(tmp_path, samples):
    features = filled(tmp_path, samples)
    before = {s: features.path(s).read_bytes() for s in range(3)}
    features.path(1).unlink()
    seen = []
    filled(tmp_path, samples, lambda batch: seen.append(len(batch.images)) or precompute(batch))
    assert sum(seen) == 5
    assert {s: features.path(s).read_bytes() for s in range(3)} == before


@pytest.mark.usefixtures("shards_of_five")
def test_processes_share_the_work(tmp_path, samples):
    whole = filled(tmp_path / "whole", samples)
    shared = open_features(tmp_path / "shared", samples, COLLATE, precompute)
    for rank, left in ((0, [1]), (1, [])):  # one after the other: what the first has made is not counted when the second takes its share
        fill(shared, samples, COLLATE, precompute, batch_size=3, share=(rank, 2))
        assert shared.missing() == left
    assert all(whole.path(s).read_bytes() == shared.path(s).read_bytes() for s in range(3))


def test_a_shard_that_fails_leaves_nothing_and_a_whole_one_stays(tmp_path, samples, monkeypatch):
    monkeypatch.setattr(kept, "SHARD", 1)
    seen = []

    def dying(batch):
        seen.append(1)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return precompute(batch)

    with pytest.raises(KeyboardInterrupt):
        filled(tmp_path, samples, dying)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["000000.f16", "000001.f16", "features.json"]  # the first image gave the shapes
    assert len(filled(tmp_path, samples).missing()) == 0


def test_what_a_killed_process_left_is_removed_after_a_day(tmp_path, samples):
    features = open_features(tmp_path, samples, COLLATE, precompute)
    for name, age in (("old", 2), ("new", 0)):
        draft = tmp_path / f"000000.{name}.draft"
        draft.write_bytes(b"half")
        os.utime(draft, (time.time() - age * 86_400,) * 2)
    assert features.missing() == [0]
    fill(features, samples, COLLATE, precompute, batch_size=4)
    assert {p.name for p in tmp_path.glob("*.draft")} == {"000000.new.draft"}


def test_training_sees_the_same_batches_with_any_number_of_workers(tmp_path):
    plain = data()
    for workers in (0, 2):
        from_disk = data(tmp_path, workers=workers)
        from_disk.keep(precompute, "key")
        for a, b in zip(plain.train_dataloader(), from_disk.train_dataloader(), strict=True):
            assert a.ids == b.ids
            assert b.images.shape == (2, 3, 0, 0)
            for found, wanted in zip(b.pyramid.maps, precompute(a).pyramid.maps, strict=True):
                assert torch.equal(found, wanted)
            for field in dataclasses.fields(a.regions):
                assert torch.equal(getattr(a.regions, field.name), getattr(b.regions, field.name))
            torch.testing.assert_close(a.labels.importance, b.labels.importance, equal_nan=True)
            assert a.labels.distortions == b.labels.distortions


def test_the_loss_is_that_of_pixels_to_half_precision(tmp_path):
    torch.manual_seed(0)
    scorer = SCORERS.build({"plugin": "roi_vlm", **SCORERS.get("roi_vlm").tiny(), "train_vision_encoder": False}).eval()
    batches = []
    for cached in (False, True):
        module = RoiIQA(data(tmp_path).dataset, scorer.preprocess, scorer.crop_size, batch_size=3, steps=1, seed=0)
        if cached:
            module.keep(scorer.precompute, "tiny")
        batches.append(next(iter(module.train_dataloader())))
    assert batches[0].pyramid is None
    with torch.no_grad():
        seen = scorer.vision_encoder(batches[0].images)
    for found, wanted in zip(batches[1].pyramid.maps, seen.maps, strict=True):
        torch.testing.assert_close(found.float(), wanted, rtol=1e-3, atol=1e-4)
    plain, found = (scorer.loss(batch)["loss"] for batch in batches)
    torch.testing.assert_close(found, plain, rtol=2e-3, atol=0)


def test_the_fingerprint_changes_with_all_that_features_hang_on():
    def encoder(**changes):
        torch.manual_seed(0)
        return VISION_ENCODERS.build({"plugin": "timm_pyramid", "name": "resnet10t", "image_size": 64, **changes})

    one = encoder()
    said = {"dataset": "photographs", "fingerprint": "abc"}
    key = fingerprint(one, one.preprocess, said)
    assert key == fingerprint(encoder(), one.preprocess, dict(reversed(said.items())))
    other = encoder()
    with torch.no_grad():
        next(other.parameters())[0, 0, 0, 0] += 1e-4
    assert fingerprint(other, one.preprocess, said) != key
    assert fingerprint(one, dataclasses.replace(one.preprocess, size=96), said) != key
    assert fingerprint(one, one.preprocess, {**said, "fingerprint": "abd"}) != key
    relu = encoder()
    relu.extra = torch.nn.ReLU()
    assert fingerprint(relu, one.preprocess, said) != key
    half = encoder().half()
    assert fingerprint(half, one.preprocess, said) != key
    assert fingerprint(one, dataclasses.replace(one.preprocess, native=True), said) == key  # no matter of an encoder


def test_a_disk_without_room_is_refused_with_the_arithmetic(tmp_path, samples, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 10**9, 100))
    with pytest.raises(
        ConfigError, match=r"cache_features: 12 images of 0.00 MiB each need .* 0.00 GiB are free there: set it to off, set data"
    ):
        filled(tmp_path, samples)
    assert [p.name for p in tmp_path.iterdir()] == ["features.json"]


def test_the_size_is_said_beforehand(tmp_path, samples, capsys):
    filled(tmp_path, samples)
    assert "12 images of 0.00 MiB each need 0.00 GiB in" in capsys.readouterr().out
    filled(tmp_path, samples)
    assert capsys.readouterr().out == ""


def test_a_data_set_without_a_cache_is_refused():
    with pytest.raises(ConfigError, match=r"disk keeps features in the data set's cache, and Photographs has none here: give it a folder"):
        data().keep(precompute, "key")


def test_a_shard_that_is_not_whole_is_named(tmp_path, samples):
    features = filled(tmp_path, samples)
    features.path(0).write_bytes(features.path(0).read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"000000.f16 ends before image 11: .* Delete it"):
        features.read(11)


def test_shards_are_about_as_large_as_said(tmp_path):
    published = Features(tmp_path, 1000, ((192, 128, 128), (384, 64, 64), (768, 32, 32), (1536, 16, 16)))
    assert published.bytes_each / 2**20 == 11.25
    assert published.images_each == 22
