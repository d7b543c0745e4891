from __future__ import annotations

import numpy as np
import pytest

from datamodules.distortions.base import to_ycc
from datamodules.distortions.colorfulness import Colorfulness

FADED, VIVID, CAST, BLEACHED = range(4)
MUTED = np.stack(np.meshgrid(np.arange(100, 150, 7), np.arange(105, 145, 5), np.arange(110, 140, 9)), -1).reshape(8, -1, 3).astype(np.uint8)


def chroma(image: np.ndarray) -> np.ndarray:
    return np.hypot(*np.moveaxis(to_ycc(image)[..., 1:], -1, 0))


@pytest.mark.parametrize("s", [s for s in range(20) if s % 4 != CAST])
def test_grey_stays_grey(s):
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    np.testing.assert_array_equal(Colorfulness()(grey, s), grey)


@pytest.mark.parametrize("s", range(20))
def test_luma_is_kept_where_nothing_clips(s):
    out = Colorfulness()(MUTED, s, seed=1)
    inside = ((out > 0) & (out < 255)).all(-1)
    assert inside.mean() > 0.4
    np.testing.assert_allclose(to_ycc(out)[inside][:, 0], to_ycc(MUTED)[inside][:, 0], atol=0.51)


def test_faded_to_nothing_is_grey():
    out = Colorfulness().apply(MUTED, FADED, 0.0, np.random.default_rng(0))
    np.testing.assert_array_equal(out, np.rint(to_ycc(MUTED)[..., :1]).astype(np.uint8).repeat(3, -1))


@pytest.mark.parametrize("grade", range(5))
@pytest.mark.parametrize("variant", [FADED, VIVID])
def test_faded_and_vivid_scale_both_colour_differences(grade, variant):
    image = np.full((4, 4, 3), (134, 126, 128), np.uint8)
    factor = Colorfulness.strengths[variant][grade]
    np.testing.assert_allclose(to_ycc(Colorfulness()(image, 4 * grade + variant))[..., 1:], factor * to_ycc(image)[..., 1:], atol=0.6)


@pytest.mark.parametrize("grade", range(5))
def test_a_cast_shifts_all_colours_alike(grade):
    out = Colorfulness()(MUTED, 4 * grade + CAST, seed=4)
    inside = ((out > 0) & (out < 255)).all(-1)
    moved = (to_ycc(out) - to_ycc(MUTED))[inside][:, 1:]
    assert inside.mean() > 0.5
    np.testing.assert_allclose(moved - moved.mean(0), 0, atol=1.2)
    assert np.hypot(*moved.mean(0)) == pytest.approx(Colorfulness.strengths[CAST][grade], abs=0.6)


def test_the_seed_turns_the_cast():
    grey = np.full((1, 1, 3), 128, np.uint8)
    hues = [np.arctan2(*to_ycc(Colorfulness()(grey, 16 + CAST, seed))[0, 0, :0:-1]) for seed in range(40)]
    assert np.histogram(hues, bins=4, range=(-np.pi, np.pi))[0].min() >= 4


@pytest.mark.parametrize("grade", range(5))
def test_bleached_chroma_stays_below_its_cap(photograph, grade):
    cap = Colorfulness.strengths[BLEACHED][grade]
    before, after = chroma(photograph), chroma(Colorfulness()(photograph, 4 * grade + BLEACHED))
    assert (after < cap + 0.6).all()
    np.testing.assert_allclose(after, cap * before / (cap + before), atol=0.8)
