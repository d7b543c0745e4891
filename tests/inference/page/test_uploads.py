"""What visitors send: read as it is, or refused in words that name no place on the server."""

import numpy as np
import pytest
from PIL import Image

from components.rle import RegionError
from inference.page.limits import Limits, Refusal
from inference.page.uploads import painted, read_bytes, read_image, read_mask
from tests.inference.page.models import encoded, photo

LIMITS = Limits(megabytes=0.1, pixels=20_000)


def test_an_image_is_read():
    assert np.array_equal(read_image(encoded(photo()), LIMITS), photo())


def test_a_file_that_is_too_large_is_refused_unread(tmp_path):
    (tmp_path / "large.png").write_bytes(bytes(150_000))
    with pytest.raises(Refusal, match=r"This file has 150,000 bytes; the page takes 100,000\.") as caught:
        read_bytes(tmp_path / "large.png", LIMITS)
    assert str(tmp_path) not in str(caught.value)
    (tmp_path / "small.png").write_bytes(b"12")
    assert read_bytes(tmp_path / "small.png", LIMITS) == b"12"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"no image at all", "not an image that can be read.*jpg"),
        (encoded(photo())[:-700], "damaged or cut short"),
        (encoded(photo(), "EPS"), "not an image that can be read"),  # Pillow would start Ghostscript for it
        (encoded(photo(), "TGA"), "not an image that can be read"),
        (encoded(photo(200, 300)), "300 x 200 = 60,000 pixels; the page takes 20,000"),
        (encoded(np.full((20, 20), 0.5, np.float32), "TIFF"), "no fixed range"),
    ],
)
def test_what_is_no_image_is_refused(data, said):
    with pytest.raises(Refusal, match=said):
        read_image(data, LIMITS)


def test_a_mask_is_what_is_not_black():
    image, mask = photo(), np.zeros((90, 120), np.uint8)
    mask[10:20, 30:50] = 7
    assert np.array_equal(read_mask(encoded(mask), image, LIMITS), mask > 0)


def test_a_transparent_mask_is_what_is_not_fully_transparent():
    mask = np.zeros((90, 120, 4), np.uint8)
    mask[5:9, 3:8, 3] = 1
    assert np.array_equal(read_mask(encoded(mask), photo(), LIMITS), mask[..., 3] > 0)
    mask[..., 3] = 255  # opaque: its colours count
    mask[0, 0, 0] = 9
    assert read_mask(encoded(mask), photo(), LIMITS).sum() == 1


def test_a_transparent_mask_is_turned_as_its_image_is():
    mask = np.zeros((120, 90, 4), np.uint8)
    mask[5:9, 3:8, 3] = 1
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn to the right
    assert np.array_equal(read_mask(encoded(mask, exif=exif), photo(), LIMITS), np.rot90(mask[..., 3] > 0, -1))


def test_a_mask_of_another_size_or_without_inside_is_refused():
    with pytest.raises(RegionError, match="50 x 40 pixels, the image is 120 x 90"):
        read_mask(encoded(np.ones((40, 50), np.uint8)), photo(), LIMITS)
    with pytest.raises(RegionError, match="covers no pixel"):
        read_mask(encoded(np.zeros((90, 120), np.uint8)), photo(), LIMITS)
    with pytest.raises(Refusal, match="not an image"):
        read_mask(b"x", photo(), LIMITS)


def test_paint_is_scaled_to_the_image_and_layers_are_one_region():
    first, second = np.zeros((45, 60, 4), np.uint8), np.zeros((45, 60, 4), np.uint8)
    first[0:5, 0:10, 3] = 99
    second[40:45, 50:60, 3] = 255
    inside = painted([first, second], photo())
    assert inside[:10, :20].all()
    assert inside[80:, 100:].all()
    assert inside.sum() == 400


def test_nothing_painted_is_refused():
    with pytest.raises(Refusal, match="Nothing is painted yet"):
        painted([np.zeros((45, 60, 4), np.uint8)], photo())
