"""What the planes show, by closed forms."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from components.registry import ConfigError
from components.vision_encoders.local_statistics import LocalStatistics

SIDE = 64
LUMA, CB, CR, NORMALISED, CONTRAST, CONTRAST_CB, CONTRAST_CR, FINE, COARSE, CLIPPED = range(10)


@pytest.fixture
def encoder():
    return LocalStatistics(**LocalStatistics.tiny()).eval()


def see(encoder, rgb: np.ndarray) -> torch.Tensor:
    """(H, W, 3) in 8-bit levels -> (10, H, W)."""
    mean, std = (torch.tensor(v)[:, None, None] for v in (encoder.preprocess.mean, encoder.preprocess.std))
    x = torch.tensor(np.asarray(rgb, np.float32) / 255).permute(2, 0, 1)
    return encoder.see(((x - mean) / std)[None])[0]


def grey(plane: np.ndarray) -> np.ndarray:
    return np.repeat(plane[..., None], 3, 2)


def test_a_flat_colour(encoder):
    planes = see(encoder, np.full((SIDE, SIDE, 3), (200.0, 80.0, 40.0)))
    luma = 0.299 * 200 + 0.587 * 80 + 0.114 * 40
    expected = {LUMA: (luma - 128) / 60, CB: 0.564 * (40 - luma) / 25, CR: 0.713 * (200 - luma) / 25, NORMALISED: 0, CLIPPED: 0}
    for plane, value in expected.items():
        torch.testing.assert_close(planes[plane], torch.full((SIDE, SIDE), float(value)), atol=2e-2, rtol=0)
    assert planes[CONTRAST].max() < -1.4  # log of the floor, less 1.5


def test_normalised_luma_and_contrast_are_those_of_the_window(encoder):
    rng = np.random.default_rng(0)
    plane = rng.integers(30, 220, (SIDE, SIDE)).astype(np.float64)
    planes = see(encoder, grey(plane)).numpy()
    mean = ndimage.uniform_filter(plane, 7, mode="nearest")
    deviation = np.sqrt(ndimage.uniform_filter(plane**2, 7, mode="nearest") - mean**2 + 1)
    np.testing.assert_allclose(planes[NORMALISED], (plane - mean) / deviation, atol=2e-3)
    np.testing.assert_allclose(planes[CONTRAST], np.log(deviation) - 1.5, atol=2e-3)


def test_light_and_slope_do_not_move_the_normalised_planes(encoder):
    rng = np.random.default_rng(0)
    plane = ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), 1) * 120
    before, after = see(encoder, grey(100 + plane)), see(encoder, grey(130 + 0.6 * plane))
    for kept in (NORMALISED, FINE, COARSE):
        torch.testing.assert_close(before[kept].mean(), after[kept].mean(), atol=0.03, rtol=0)
    assert (before[CONTRAST] - after[CONTRAST]).mean() == pytest.approx(-np.log(0.6), abs=0.02)


def test_blur_lowers_fine_contrast_and_noise_raises_it(encoder):
    rng = np.random.default_rng(0)
    plane = 120 + 90 * ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), 1.5) / 0.19
    blurred, noisy = ndimage.gaussian_filter(plane, 2), plane + rng.normal(0, 12, plane.shape)
    sharp, soft, grainy = (float(see(encoder, grey(np.clip(p, 5, 250)))[FINE].mean()) for p in (plane, blurred, noisy))
    assert soft < sharp - 0.03
    assert grainy > sharp + 0.02


def test_clipped_colours_are_counted(encoder):
    image = np.full((SIDE, SIDE, 3), 128.0)
    image[:8] = (0, 128, 255)
    image[8:16] = 255
    planes = see(encoder, image)
    torch.testing.assert_close(planes[CLIPPED, :8], torch.full((8, SIDE), 4 / 3))
    torch.testing.assert_close(planes[CLIPPED, 8:16], torch.full((8, SIDE), 2.0))
    assert not planes[CLIPPED, 16:].any()


def test_planes_are_single_precision_under_autocast(encoder):
    images = torch.randn(1, 3, SIDE, SIDE)
    with torch.autocast("cpu", torch.bfloat16):
        planes = encoder.see(images)
    assert planes.dtype == torch.float32
    torch.testing.assert_close(planes, encoder.see(images))


def test_weights_for_three_colours_are_refused():
    with pytest.raises(ConfigError, match="weights: timm's weights are for 3 colours, and local_statistics shows its net 10 planes"):
        LocalStatistics(**LocalStatistics.tiny(), weights="pretrained")
