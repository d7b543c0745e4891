"""The seam to pyiqa, with a stand-in (see conftest): what it is asked, and what becomes of its answers."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from components.registry import ConfigError
from datamodules.distortions.base import DISTORTIONS
from datamodules.quality_labels.base import QUALITY_LABELS


def built(**options):
    return QUALITY_LABELS.build({"plugin": "pyiqa", **options})


def test_it_says_what_it_is():
    label = built(metric="ckdn")
    assert label.version == "1, ckdn, pyiqa 9.9.9"
    assert "not for commercial use" in label.say()
    assert type(label).version == "1"


def test_nothing_is_fetched_before_it_is_needed(stand_in, photograph):
    label = built(metric="topiq_fr", device="cpu")
    assert stand_in.asked == []
    label.image(photograph, photograph)
    label.image(photograph, photograph)
    assert stand_in.asked == [("topiq_fr", "cpu")]


def test_a_region_is_cut_along_its_mask_and_padded_to_a_size_that_networks_take(photograph):
    label = built(smallest=40)
    mask = np.zeros(photograph.shape[:2], bool)
    mask[10:30, 20:30] = True
    mask[15, 25] = False
    distorted = photograph.copy()
    distorted[10:30, 20:30] //= 2
    error = ((distorted / 255 - photograph / 255) ** 2)[mask].sum() / (40 * 40 * 3)
    assert label.region(distorted, photograph, mask) == pytest.approx(1 / (1 + 50 * error), abs=1e-6)


@pytest.mark.parametrize("batch", [1, 2, 100])
def test_batches_change_nothing(photograph, batch):
    distorted = DISTORTIONS.build({"plugin": "blur"})(photograph, 12)
    masks = np.zeros((5, *photograph.shape[:2]), bool)
    for i, mask in enumerate(masks):
        mask[10 * i : 10 * i + 15, 5 : 20 + i] = True
    expected = built(batch=3).label(distorted, photograph, masks)
    np.testing.assert_allclose(built(batch=batch).label(distorted, photograph, masks), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("metric_mode", "NR", "'topiq_fr' is no full-reference measure"),
        ("lower_better", True, "'topiq_fr' is lower-is-better: take one like"),
    ],
)
def test_measures_that_will_not_do(stand_in, photograph, monkeypatch, attribute, value, message):
    monkeypatch.setattr(stand_in.measure, attribute, value)
    with pytest.raises(ConfigError, match=message):
        built().image(photograph, photograph)


@pytest.mark.parametrize("options", [{"batch": 0}, {"smallest": 0}])
def test_options_out_of_range(options):
    with pytest.raises(ConfigError, match="batch and smallest are at least 1"):
        built(**options)


def test_without_pyiqa_the_remedy_and_the_licence_are_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "pyiqa")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"not for commercial use .*pip install pyiqa"):
        built()
