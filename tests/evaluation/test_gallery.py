import io

import numpy as np
import pytest
from PIL import Image

from evaluation.gallery import draw_region, encode_jpeg, region_card


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)


def box(shape, top, bottom, left, right):
    mask = np.zeros(shape, bool)
    mask[top:bottom, left:right] = True
    return mask


def test_the_region_is_untouched_outlined_and_the_rest_dimmed(image):
    mask = box((300, 400), 100, 200, 100, 200)
    out = draw_region(image, mask, stroke=3)
    assert np.array_equal(out[mask], image[mask])
    assert np.all(out[150, 97:100] == 255)
    assert np.all(out[150, 96] == 16)
    assert out[:50].sum() < 0.6 * image[:50].sum()


def test_a_mask_of_everything_leaves_the_image(image):
    assert np.array_equal(draw_region(image, np.ones((300, 400), bool)), image)


def test_a_card_is_shrunk_and_a_small_region_magnified(image):
    large = region_card(image, box((300, 400), 50, 250, 50, 350), side=200)
    assert large.shape == (150, 200, 3)
    white = np.zeros_like(image)
    small = region_card(white, box((300, 400), 10, 20, 10, 20), side=200)
    assert np.all(small[-9, 140:190] == 255)  # the frame of the inset, in the corner farthest away


@pytest.mark.parametrize("shape", [(5, 5), (1, 300), (300, 2), (2000, 10)])
def test_odd_images_and_single_pixels_make_a_card(shape):
    mask = np.zeros(shape, bool)
    mask[-1, -1] = True
    card = region_card(np.zeros((*shape, 3), np.uint8), mask, side=100)
    assert card.any()


def test_jpeg_is_close(image):
    smooth = np.tile(np.linspace(0, 255, 64).astype(np.uint8)[:, None, None], (1, 64, 3))
    again = np.asarray(Image.open(io.BytesIO(encode_jpeg(smooth)))).astype(int)
    assert np.abs(again - smooth).max() <= 8


def test_mistakes_are_refused(image):
    with pytest.raises(ValueError, match=r"expected \(H, W, 3\) uint8"):
        draw_region(image / 255, np.ones((300, 400), bool))
    with pytest.raises(ValueError, match=r"the mask is \(10, 10\) bool: expected \(300, 400\)"):
        draw_region(image, np.ones((10, 10), bool))
    with pytest.raises(ValueError, match="the mask is empty"):
        region_card(image, np.zeros((300, 400), bool))
