from __future__ import annotations

import io

import numpy as np
import PIL.Image
import pytest

from datamodules.distortions.compression import Compression

JPEG_420, JPEG_444, WEBP, JPEG_2000 = range(4)


def decoded(image: np.ndarray, **options: object) -> np.ndarray:
    buffer = io.BytesIO()
    PIL.Image.fromarray(image).save(buffer, **options)
    return np.array(PIL.Image.open(buffer).convert("RGB"))


@pytest.mark.parametrize("s", range(20))
def test_a_constant_grey_stays_nearly_so(s):
    out = Compression()(np.full((24, 40, 3), 100, np.uint8), s)
    assert out.std() < 1.5
    np.testing.assert_allclose(out.astype(int), 100, atol=13)  # half the coarsest step of a JPEG block's mean


@pytest.mark.parametrize(("variant", "subsampling"), [(JPEG_420, 2), (JPEG_444, 0)])
@pytest.mark.parametrize("grade", range(5))
def test_jpeg_is_what_the_codec_makes(photograph, variant, subsampling, grade):
    quality = int(Compression.strengths[variant][grade])
    expected = decoded(photograph, format="JPEG", quality=quality, subsampling=subsampling)
    np.testing.assert_array_equal(Compression()(photograph, 4 * grade + variant), expected)


@pytest.mark.parametrize("grade", range(5))
def test_webp_is_what_the_codec_makes(photograph, grade):
    expected = decoded(photograph, format="WEBP", quality=int(Compression.strengths[WEBP][grade]), method=2)
    np.testing.assert_array_equal(Compression()(photograph, 4 * grade + WEBP), expected)


def test_jpeg_2000_reaches_its_ratio(photograph):
    buffer = io.BytesIO()
    ratio = Compression.strengths[JPEG_2000][0]
    options = {"quality_mode": "rates", "quality_layers": [ratio], "irreversible": True}
    PIL.Image.fromarray(photograph).save(buffer, format="JPEG2000", **options)
    assert photograph.nbytes / buffer.getbuffer().nbytes == pytest.approx(ratio, rel=0.15)
    np.testing.assert_array_equal(Compression()(photograph, JPEG_2000), np.array(PIL.Image.open(buffer)))


def test_subsampling_blurs_colour_edges_only_in_4_2_0():
    image = np.zeros((32, 32, 3), np.uint8)
    image[:, :15] = (200, 60, 60)
    image[:, 15:] = (60, 60, 200)
    wrong = [np.abs(Compression()(image, variant).astype(int) - image).mean() for variant in (JPEG_420, JPEG_444)]
    assert wrong[0] > wrong[1]
