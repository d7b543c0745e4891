"""What every data set promises; plugins are found on disk, so that a new one is tested without an edit here."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch

from components.preprocess import Preprocess
from components.prompts import DISTORTION_TYPES, SEVERITIES
from configs.layers import from_overrides, layered
from datamodules.collate import Collate
from datamodules.datasets.base import DATASETS
from datamodules.records import SPLITS

PREPROCESS = Preprocess(16, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))


def built(name: str):
    dataset = DATASETS.build({"plugin": name, **DATASETS.get(name).tiny()})
    dataset.prepare()
    return dataset


@pytest.fixture(scope="module", params=DATASETS.names())
def name(request) -> str:
    try:
        DATASETS.get(request.param)
    except ImportError as error:
        pytest.skip(str(error))
    return request.param


@pytest.fixture(scope="module")
def dataset(name):
    return built(name)


@pytest.fixture(scope="module")
def samples(dataset) -> dict:
    return {s: [dataset.split(s)[i] for i in range(len(dataset.split(s)))] for s in SPLITS}


def test_the_plugins_are_on_disk():
    assert "photographs" in DATASETS.names()


def test_a_sample_is_an_image_with_its_regions(samples):
    for split, found in samples.items():
        assert found
        for sample in found:
            record = sample.record
            assert sample.image.dtype == torch.uint8
            assert sample.image.shape == (3, record.height, record.width)
            assert record.split == split
            masks = sample.masks()
            assert masks.dtype == torch.bool
            assert masks.shape == (len(record.regions), record.height, record.width)
            assert masks.any(-1).any(-1).all()


def test_labels_are_in_their_ranges(samples):
    regions = [r for found in samples.values() for s in found for r in s.record.regions]
    for region in regions:
        for score in (region.quality, region.importance):
            assert score is None or 0 <= score <= 1
        for std in (region.quality_std, region.importance_std):
            assert std is None or std >= 0
        for kind, severity in region.distortions or ():
            assert kind in DISTORTION_TYPES
            assert severity in SEVERITIES
    assert any(r.quality is not None or r.importance is not None or r.distortions is not None for r in regions)


def test_names_are_unique(samples):
    records = [s.record for found in samples.values() for s in found]
    assert len({r.id for r in records}) == len(records)
    names = [region.id for r in records for region in r.regions]
    assert len(set(names)) == len(names)


def test_splits_share_no_source(samples):
    sources = [{s.record.source for s in found} for found in samples.values()]
    for a in range(3):
        for b in range(a):
            assert not sources[a] & sources[b]


def same(a, b) -> bool:
    return torch.equal(a.image, b.image) and a.record == b.record


def test_a_sample_is_the_same_whenever_and_wherever_it_is_asked_for(name, dataset, samples):
    twin, travelled = built(name), pickle.loads(pickle.dumps(dataset))
    for split, found in samples.items():
        for other in (dataset, twin, travelled):
            assert len(other.split(split)) == len(found)
            for i in reversed(range(len(found))):
                assert same(other.split(split)[i], found[i])


def test_regions_are_counted_without_reading_an_image(dataset, samples):
    for split, found in samples.items():
        counts = dataset.split(split).region_counts()
        assert counts.dtype == np.int64
        assert counts.tolist() == [len(s.record.regions) for s in found]


def test_no_label_names_more_distortions_than_said(dataset, samples):
    named = [len(r.distortions or ()) for found in samples.values() for s in found for r in s.record.regions]
    assert max(named) <= dataset.most_types <= len(DISTORTION_TYPES)


def test_an_index_beyond_the_end_is_refused(dataset):
    for split in SPLITS:
        with pytest.raises(IndexError):
            dataset.split(split)[len(dataset.split(split))]


def test_what_a_run_records_is_json_and_stays_the_same(name, dataset):
    described = json.loads(json.dumps(dataset.describe(), allow_nan=False))
    assert described == json.loads(json.dumps(built(name).describe()))
    assert described["dataset"] == name


def test_what_is_kept_is_what_was_described_or_nothing(name, dataset, samples):
    described = json.loads(json.dumps(dataset.describe()))
    kept = built(name).kept("test", described)
    assert kept is None or all(same(kept[i], sample) for i, sample in enumerate(samples["test"]))
    assert dataset.kept("test", {**described, "fingerprint": "another", "sets": {}}) is None


def test_no_picture_of_the_test_is_trained_on_and_all_can_be_tested(name, dataset):
    found = {split: dataset.pictures(split) for split in SPLITS}
    assert all(found.values())
    assert not found["test"] & (found["train"] | found["val"])
    if whole := dataset.only_tested():
        options = layered({"plugin": name, **DATASETS.get(name).tiny()}, from_overrides([f"{k}={json.dumps(v)}" for k, v in whole.items()]))
        tested = DATASETS.build(options)
        assert found["test"] < tested.pictures("test") <= set().union(*found.values())
        assert not tested.only_tested()


def test_samples_become_a_batch(samples):
    for found in samples.values():
        batch = Collate(PREPROCESS, 8)(found)
        assert batch.images.shape == (len(found), 3, 16, 16)
        assert np.isfinite(batch.images.numpy()).all()
        assert batch.regions.valid.sum(1).tolist() == [len(s.record.regions) for s in found]
        assert (batch.regions.boxes >= 0).all()
        assert (batch.regions.boxes <= 1).all()
