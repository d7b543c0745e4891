from __future__ import annotations

from collections import Counter

import pytest

from components.registry import ConfigError
from datamodules.datasets.base import DATASETS


def built(**options):
    sets = {n: {"plugin": "indexed", **DATASETS.get("indexed").tiny()} for n in ("a", "b")}
    sets["b"]["regions"] = 0  # a third as many samples
    dataset = DATASETS.build({"plugin": "mixture", "sets": sets, **options})
    dataset.prepare()
    return dataset


def seen(samples):
    return [samples[i].record for i in range(len(samples))]


def test_every_sample_is_seen_and_the_weights_hold():
    dataset = built(weights={"a": 1, "b": 3})
    sizes = {n: len(s.split("train")) for n, s in dataset.sets.items()}
    assert sizes == {"a": 10, "b": 5}
    samples = dataset.split("train")
    records = seen(samples)
    shares = Counter(r.id[0] for r in records)
    assert shares == {"a": 10, "b": 30}
    assert len({r.id for r in records}) == 40
    assert {r.id for r in records if r.id.startswith("b/")} == {f"b/{r.id}" for r in seen(dataset.sets["b"].split("train"))}
    assert samples.region_counts().tolist() == [len(r.regions) for r in records]


def test_sets_are_spread_evenly():
    names = [r.id[0] for r in seen(built(weights={"a": 1, "b": 1}).split("train"))]
    assert all(names[i : i + 4].count("a") == 2 for i in range(0, 20, 4))


def test_validation_is_of_all_sets_once():
    dataset = built(weights={"b": 5})
    assert [len(dataset.split(s)) for s in ("val", "test")] == [
        sum(len(d.split(s)) for d in dataset.sets.values()) for s in ("val", "test")
    ]


def test_a_set_teaches_its_tasks_alone():
    dataset = built(tasks={"a": ["importance"]})
    for record in seen(dataset.split("train")):
        for region in record.regions:
            assert region.importance is not None
            known = record.id.startswith("b")
            assert ((region.quality is not None), (region.quality_std is not None), (region.distortions is not None)) == (known,) * 3
    assert all(r.quality is not None for record in seen(dataset.split("val")) for r in record.regions)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sets": {}}, "at least one data set by name"),
        ({"weights": {"c": 1}}, "weights and tasks are of the sets a, b, got c"),
        ({"weights": {"a": 0}}, "weights are positive numbers, got"),
        ({"tasks": {"a": ["beauty"]}}, "tasks are quality, importance, distortion, got beauty"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ConfigError, match=message):
        built(**options)


def test_a_set_without_training_samples_has_no_share():
    dataset = built()
    dataset.sets["b"].__dict__["rows"].readable[:] = False
    with pytest.raises(ConfigError, match="mixture: b has no training samples, and so no share"):
        dataset.split("train")


def test_weights_that_would_repeat_a_set_without_end_are_refused():
    """The samples of an epoch are kept as arrays: found before these are made."""
    with pytest.raises(ConfigError, match=r"an epoch has 5,000,005 samples \(a 5,000,000 of its 10, b 5 of its 5\), more than 100 times"):
        built(weights={"a": 1, "b": 1e-6}).split("train")
    assert len(built(weights={"a": 1, "b": 0.01}).split("train")) == 505
