from __future__ import annotations

import numpy as np
import pytest

from datamodules.distortions.base import from_linear, to_linear
from datamodules.distortions.exposure import Exposure

OVER, UNDER, BRIGHT, DARK = range(4)
LEVELS = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)


def test_one_stop_more_doubles_linear_light():
    out = Exposure().apply(LEVELS, OVER, 1.0, np.random.default_rng(0))
    light = to_linear(LEVELS)
    unclipped = 2 * light <= 1
    np.testing.assert_allclose(to_linear(out)[unclipped], 2 * light[unclipped], atol=0.005)  # half an 8-bit level at the bright end
    assert (out[~unclipped] == 255).all()


@pytest.mark.parametrize("variant", [OVER, UNDER])
@pytest.mark.parametrize("grade", range(5))
def test_stops_multiply_linear_light(variant, grade):
    gain = np.float32(2.0 ** Exposure.strengths[variant][grade])
    np.testing.assert_array_equal(Exposure()(LEVELS, 4 * grade + variant), from_linear(to_linear(LEVELS) * gain))


@pytest.mark.parametrize("variant", [BRIGHT, DARK])
@pytest.mark.parametrize("grade", range(5))
def test_bright_and_dark_add_coded_levels(variant, grade):
    shift = Exposure.strengths[variant][grade]
    np.testing.assert_array_equal(Exposure()(LEVELS, 4 * grade + variant), np.clip(LEVELS + shift, 0, 255))


@pytest.mark.parametrize("s", range(20))
def test_black_stays_black_under_stops_and_nothing_changes_order(s):
    out = Exposure()(LEVELS, s)[..., 0].ravel().astype(int)
    assert (np.diff(out) >= 0).all()
    if s % 4 in (OVER, UNDER):
        assert out[0] == 0
