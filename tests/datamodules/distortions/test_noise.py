from __future__ import annotations

import numpy as np
import pytest

from datamodules.distortions.base import to_ycc
from datamodules.distortions.noise import Noise

GAUSSIAN, PHOTON, IMPULSE, GRAIN = range(4)
MILD = range(3)  # grades that do not clip around mid-grey


def flat(level: int, size: int = 160) -> np.ndarray:
    return np.full((size, size, 3), level, np.uint8)


def residue(level: int, s: int) -> np.ndarray:
    return Noise()(flat(level), s, seed=8).astype(float) - level


@pytest.mark.parametrize("grade", MILD)
def test_gaussian_noise_has_its_deviation_everywhere(grade):
    sigma = Noise.strengths[GAUSSIAN][grade]
    for level in (80, 170):
        noise = residue(level, 4 * grade + GAUSSIAN)
        assert noise.mean() == pytest.approx(0, abs=0.1 * sigma)
        assert noise.std() == pytest.approx(sigma, rel=0.03)
        assert abs(np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]) < 0.02


@pytest.mark.parametrize("grade", MILD)
def test_photon_noise_grows_with_the_root_of_the_light(grade):
    sigma = Noise.strengths[PHOTON][grade]
    assert residue(128, 4 * grade + PHOTON).std() == pytest.approx(sigma, rel=0.03)
    assert residue(62, 4 * grade + PHOTON).std() == pytest.approx(sigma * np.sqrt(66 / 132), rel=0.04)


@pytest.mark.parametrize("grade", range(5))
def test_impulses_hit_their_share_and_leave_the_rest(grade):
    share = Noise.strengths[IMPULSE][grade]
    out = Noise()(flat(100), 4 * grade + IMPULSE, seed=8)
    assert set(np.unique(out)) == {0, 100, 255}
    for level in (0, 255):
        assert (out == level).mean() == pytest.approx(share / 2, rel=0.15)


@pytest.mark.parametrize("grade", MILD)
def test_grain_is_coarse_and_mostly_chromatic(grade):
    noise = to_ycc(Noise()(flat(128), 4 * grade + GRAIN, seed=8)) - [128, 0, 0]
    luma, blue, red = noise.std((0, 1))
    assert luma / blue == pytest.approx(0.45, rel=0.06)
    assert blue == pytest.approx(red, rel=0.05)
    assert blue == pytest.approx(Noise.strengths[GRAIN][grade], rel=0.06)
    assert np.corrcoef(noise[:, 1:, 1].ravel(), noise[:, :-1, 1].ravel())[0, 1] > 0.4
