"""What is counted by columns is what is taken for unknown region by region."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from datamodules.label_faults import count_unfit
from datamodules.records import Scale
from datamodules.tables import REGION, from_row


def regions(scale: Scale, scores, stds) -> list[dict]:
    blank = dict.fromkeys(REGION.names)
    ends = {"low": scale.low, "high": scale.high, "direction": scale.direction}
    return [{**blank, "id": "a", "quality": q, "quality_std": s, "quality_scale": ends} for q, s in zip(scores, stds, strict=True)]


def read(found: list[dict]):
    return from_row({"id": "a", "source": "a", "split": "train", "height": 1, "width": 1, "regions": found}).regions


@pytest.mark.parametrize("scale", [Scale(), Scale(1, 5), Scale(0, 100, "lower")])
def test_what_is_counted_is_what_is_taken_for_unknown(scale):
    """Scores rounded to any place, at the ends of their scale too, with standard deviations of all sizes."""
    rng = np.random.default_rng(0)
    shares = np.concatenate([rng.beta(0.2, 0.2, 400), [-0.1, 1.1, np.nan]])
    scores = [round(scale.low + share * (scale.high - scale.low), n % 7) for n, share in enumerate(shares.tolist())]
    stds = ((scale.high - scale.low) * np.concatenate([rng.exponential(0.2, 401), [-0.1, np.nan]])).tolist()
    found = regions(scale, scores, stds)
    lost = sum((r.quality is None) + (r.quality_std is None) for r in read(found))
    assert count_unfit(pa.chunked_array([pa.array([found], pa.list_(REGION))])) == lost
    assert 20 < lost < 400


@pytest.mark.parametrize(
    ("score", "largest"), [(3.0, 8**0.5), (5.0, 1.871), (4.6, 1.789), (4.98, 0.447), (4.999999, 0.00346), (1.0, 1.871)]
)
def test_a_score_is_taken_for_rounded_to_its_last_place(score, largest):
    """Nine opinions of 5 and one of 4 have a mean of 4.9, which may be written as 5, and a standard deviation of 0.3."""
    assert Scale(1, 5).largest_std(score) == pytest.approx(largest, rel=0.01)
    (kept,) = read(regions(Scale(1, 5), [5.0], [0.3]))
    assert (kept.quality, kept.quality_std) == (1, pytest.approx(0.075))


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_no_score_is_taken_for_rounded_more_coarsely_than_to_five_steps(score):
    assert Scale().largest_std(score) == pytest.approx((2 * 7 / 64) ** 0.5)


def test_distortions_that_are_none_are_counted_as_they_are_taken_for_unknown():
    good = {"type": "blur", "severity": "minor"}
    lists = [None, [], [good], [good, {"type": "noise", "severity": "severe"}]]
    unfit = [[good, good], [None], [good, {**good, "type": "sharpness"}], [{**good, "severity": None}], [{**good, "severity": "some"}] * 2]
    found = [{**dict.fromkeys(REGION.names), "id": "a", "distortions": pairs} for pairs in (*lists, *unfit, [good])]
    assert [r.distortions is None for r in read(found)] == [True, False, False, False, *[True] * len(unfit), False]
    assert count_unfit(pa.chunked_array([pa.array([found[:5], found[5:]], pa.list_(REGION))])) == len(unfit)
