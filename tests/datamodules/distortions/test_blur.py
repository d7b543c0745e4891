from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from datamodules.distortions.blur import Blur, _disc, _trail

GAUSSIAN, DEFOCUS, MOTION, RESAMPLE = range(4)
GRADES = range(5)


def setting(grade: int, variant: int) -> int:
    return 4 * grade + variant


def spot(size: int = 65) -> np.ndarray:
    """Black, with one white pixel in the middle."""
    image = np.zeros((size, size, 3), np.uint8)
    image[size // 2, size // 2] = 255
    return image


@pytest.mark.parametrize("s", range(20))
def test_a_constant_image_blurs_to_itself(s):
    image = np.full((20, 30, 3), (10, 130, 250), np.uint8)
    np.testing.assert_array_equal(Blur()(image, s, seed=3), image)


@pytest.mark.parametrize("variant", range(4))
def test_the_mean_is_kept(photograph, variant):
    out = Blur()(photograph, setting(1, variant))
    np.testing.assert_allclose(out.mean((0, 1)), photograph.mean((0, 1)), atol=0.6)


def test_gaussian_has_its_standard_deviation():
    row = np.zeros((1, 401, 3), np.uint8)
    row[:, 200:] = 200  # a step blurs to the error function: its slope in the middle is 1 / (sigma sqrt(2 pi))
    for grade, sigma in enumerate(Blur.strengths[GAUSSIAN]):
        out = Blur()(row, setting(grade, GAUSSIAN))[0, :, 0].astype(float) / 200
        assert out[200] - out[199] == pytest.approx(1 / (sigma * np.sqrt(2 * np.pi)), rel=0.08)


@pytest.mark.parametrize("radius", Blur.strengths[DEFOCUS])
def test_the_disc_is_round_flat_and_of_its_radius(radius):
    disc = _disc(radius)
    assert disc.sum() == pytest.approx(1)
    for turned in (disc.T, disc[::-1], disc[:, ::-1]):
        np.testing.assert_array_equal(turned, disc)
    assert disc.max() * np.pi * radius**2 == pytest.approx(1, rel=0.05)  # as high as a disc of that area
    y, x = np.nonzero(disc)
    middle = disc.shape[0] // 2
    assert np.hypot(y - middle, x - middle).max() <= radius + 0.5


@pytest.mark.parametrize("length", Blur.strengths[MOTION])
@pytest.mark.parametrize("angle", [0.0, 0.7, np.pi / 2, 2.5])
def test_the_trail_has_its_length_and_direction(length, angle):
    trail = _trail(length, angle).astype(np.float64)
    reach = trail.shape[0] // 2
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    assert trail.sum() == pytest.approx(1)
    np.testing.assert_allclose(trail, trail[::-1, ::-1], atol=1e-6)
    assert (trail * along**2).sum() == pytest.approx(length**2 / 12, rel=0.12, abs=0.4)  # a uniform distribution's, and the pixels'
    assert (trail * across**2).sum() < 0.3


@pytest.mark.parametrize("variant", [DEFOCUS, MOTION])
@pytest.mark.parametrize("size", [(40, 33), (5, 60)])
def test_kernels_act_as_direct_convolution(photograph, variant, size):
    image = photograph[: size[0], : size[1]]
    strength = Blur.strengths[variant][1]
    rng = np.random.default_rng(9)
    kernel = _disc(strength) if variant == DEFOCUS else _trail(strength, rng.uniform(0, np.pi))
    mode = "reflect" if min(size) > kernel.shape[0] // 2 else "nearest"
    direct = np.stack([ndimage.convolve(image[..., c].astype(float), kernel.astype(float), mode=mode) for c in range(3)], -1)
    np.testing.assert_allclose(Blur()(image, setting(1, variant), seed=9), direct, atol=0.51)


def test_the_seed_turns_the_trail():
    a, b = (Blur()(spot(), setting(4, MOTION), seed)[..., 0] for seed in (0, 1))
    assert not np.array_equal(a, b)
    assert np.count_nonzero(a) == pytest.approx(np.count_nonzero(b), rel=0.5)


@pytest.mark.parametrize("grade", GRADES)
def test_lost_resolution_hides_the_finest_stripes(grade):
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    assert Blur()(stripes, setting(grade, RESAMPLE)).std() < 0.5 * stripes.std()


def test_lost_resolution_keeps_the_size_of_one_pixel():
    image = np.full((1, 1, 3), 9, np.uint8)
    np.testing.assert_array_equal(Blur()(image, setting(4, RESAMPLE)), image)
