from __future__ import annotations

import numpy as np
import pytest

from datamodules.distortions.contrast import Contrast

FLAT, STRETCHED, SOFT, HARD = range(4)
RAMP = np.arange(64, 193, dtype=np.uint8).reshape(1, -1, 1).repeat(3, 2)  # its mean, 128, is one of its levels


@pytest.mark.parametrize("s", range(20))
def test_a_constant_image_is_a_fixed_point(s):
    image = np.full((3, 5, 3), 77, np.uint8)
    np.testing.assert_array_equal(Contrast()(image, s), image)


@pytest.mark.parametrize("s", range(20))
def test_the_mean_is_a_fixed_point_and_the_order_is_kept(s):
    out = Contrast()(RAMP, s)[0, :, 0].astype(int)
    assert RAMP.mean() == 128 == out[64]
    assert (np.diff(out) >= 0).all()
    np.testing.assert_allclose(out + out[::-1], 256, atol=1)  # what is above the mean and below it are treated alike


@pytest.mark.parametrize("grade", range(5))
@pytest.mark.parametrize("variant", [FLAT, STRETCHED])
def test_the_line_has_its_slope(grade, variant):
    slope = Contrast.strengths[variant][grade]
    expected = np.clip(128 + slope * (RAMP - 128.0), 0, 255)
    np.testing.assert_allclose(Contrast()(RAMP, 4 * grade + variant), expected, atol=0.501)


@pytest.mark.parametrize("grade", range(5))
@pytest.mark.parametrize("variant", [SOFT, HARD])
def test_the_curve_has_its_slope_at_the_mean(grade, variant):
    out = Contrast()(RAMP, 4 * grade + variant)[0, :, 0].astype(float)
    assert (out[64 + 4] - out[64 - 4]) / 8 == pytest.approx(Contrast.strengths[variant][grade], rel=0.05, abs=0.13)


@pytest.mark.parametrize("grade", range(5))
def test_the_s_curve_levels_off(grade):
    out = Contrast()(RAMP, 4 * grade + HARD)[0, :, 0].astype(float)
    assert out.max() <= 255
    assert out[-1] - out[-2] <= out[65] - out[64]


@pytest.mark.parametrize("grade", range(5))
def test_soft_keeps_shadows_and_highlights_further_apart_than_flat_would(grade):
    slope = Contrast.strengths[SOFT][grade]
    out = Contrast()(RAMP, 4 * grade + SOFT)[0, :, 0].astype(float)
    assert out[-1] - out[0] > slope * 128 + 1
