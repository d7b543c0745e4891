from __future__ import annotations

import numpy as np
import pytest

from datamodules.distortions.base import to_ycc
from datamodules.procedural import dead_leaves


def leaves(size: int, seed: int) -> np.ndarray:
    return dead_leaves(size, np.random.default_rng(seed))


def slope(image: np.ndarray) -> float:
    """Of the radially averaged power spectrum of luma, in logarithmic axes, without the lowest frequencies and the highest."""
    size = image.shape[0]
    luma = to_ycc(image)[..., 0]
    window = np.hanning(size)[:, None] * np.hanning(size)
    power = np.abs(np.fft.rfft2((luma - luma.mean()) * window)) ** 2
    radius = np.rint(np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)) * size).astype(int)
    mean = np.bincount(radius.ravel(), power.ravel()) / np.bincount(radius.ravel())
    band = np.arange(3, int(0.4 * size))
    return np.polyfit(np.log(band), np.log(mean[band]), 1)[0]


@pytest.mark.parametrize("size", [16, 33, 64, 100])
def test_sizes(size):
    image = leaves(size, 0)
    assert image.shape == (size, size, 3)
    assert image.dtype == np.uint8


def test_the_seed_is_the_image():
    np.testing.assert_array_equal(leaves(48, 3), leaves(48, 3))
    assert not np.array_equal(leaves(48, 3), leaves(48, 4))


def test_a_generator_goes_on_to_another_image():
    rng = np.random.default_rng(0)
    assert not np.array_equal(dead_leaves(32, rng), dead_leaves(32, rng))


def test_power_falls_with_frequency_as_in_photographs():
    assert -3.2 < np.mean([slope(leaves(128, seed)) for seed in range(10)]) < -1.2  # photographs: about -2


def test_the_measure_of_the_slope():
    rng = np.random.default_rng(0)
    assert slope(rng.integers(0, 256, (128, 128, 1), dtype=np.uint8).repeat(3, 2)) == pytest.approx(0, abs=0.1)  # white noise


def test_images_have_contrast_and_colour():
    images = [leaves(64, seed) for seed in range(10)]
    assert np.mean([to_ycc(i)[..., 0].std() for i in images]) > 25
    assert np.mean([np.hypot(*np.moveaxis(to_ycc(i)[..., 1:], 2, 0)).mean() for i in images]) > 5
    assert np.mean([np.isin(i, (0, 255)).mean() for i in images]) < 0.15  # little is clipped
