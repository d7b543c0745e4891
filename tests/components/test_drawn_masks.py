"""One region is read of what draws one, and several are refused rather than joined."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from components.drawn_masks import of_array, of_image
from components.rle import RegionError

WHITE = 255


def ellipse(mode="L", enlarged=1):
    image = Image.new(mode, (120 * enlarged, 90 * enlarged))
    ImageDraw.Draw(image).ellipse([enlarged * v for v in (20, 15, 90, 70)], fill=WHITE if mode == "L" else (WHITE, 0, 0))
    return image


def written(image, form, **options):
    """As it is read again from a file of this format."""
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, form, **options)
    file.seek(0)
    return Image.open(file)


def labels(*values, dtype=np.uint8):
    """A map of stripes of ten pixels, with black around it."""
    out = np.zeros((30, 10 * len(values) + 20), dtype)
    for n, value in enumerate(values, 1):
        out[5:25, 10 * n : 10 * n + 10] = value
    return out


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32, np.float16])
def test_an_array_of_one_region_is_what_is_not_zero(dtype):
    array = labels(1, dtype=dtype)
    np.testing.assert_array_equal(of_array(array), array != 0)
    assert not of_array(np.zeros_like(array)).any()


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (
            labels(0.2, 0.9, dtype=np.float32),
            r"floats holds 0 and 1 alone, got 0, 0\.2, 0\.9: say what is inside, for instance mask > 0\.5",
        ),
        (np.full((4, 5), np.nan), "floats holds 0 and 1 alone, got NaN"),
        (labels(255, dtype=np.float64), "floats holds 0 and 1 alone, got 0, 255"),
        (labels(1, 2), r"integers holds 0 and one other value, got 0, 1, 2: of a map of labels take one, labels == k"),
        (np.arange(1, 7).reshape(2, 3), r"got 1, 2, 3, 4, \.\.\. \(6 values\)"),
    ],
)
def test_an_array_of_several_values_is_refused(array, said):
    with pytest.raises(RegionError, match=said):
        of_array(array)


@pytest.mark.parametrize("quality", [20, 50, 75, 95])
@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
def test_what_lossy_compression_blurs_is_cut_at_half(form, quality):
    """All that is not black would be a wider region: a mask grows by what the compression puts around its edge."""
    drawn = ellipse()
    found = written(drawn, form, quality=quality)
    assert (np.asarray(found.convert("L")) != 0).sum() > 1.02 * (np.asarray(drawn) != 0).sum()
    assert (of_image(found, "") != (np.asarray(drawn) != 0)).mean() < 1e-3


@pytest.mark.parametrize("colour", [(200,) * 3, (128,) * 3, (64,) * 3, (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 100, 0)])
@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
def test_what_is_not_white_overshoots_at_its_edge_and_is_cut_at_half_all_the_same(form, colour):
    white = np.asarray(ellipse().convert("L")) != 0
    found = written(Image.fromarray(np.where(white[..., None], np.uint8(colour), np.uint8(0))), form)
    light = np.asarray(found.convert("L")).astype(int)
    assert light.max() > np.median(light[white])
    assert (of_image(found, "") != white).sum() < 0.01 * white.sum()


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("factor", [0.25, 2])
def test_soft_edges_are_cut_at_half(mode, factor):
    drawn = ellipse(mode, 4)
    size = [round(side * factor) for side in drawn.size]
    soft, hard = (drawn.resize(size, how) for how in (Image.Resampling.BILINEAR, Image.Resampling.NEAREST))
    assert len(np.unique(np.asarray(soft))) > 2
    wanted = np.asarray(hard.convert("L")) != 0
    assert (of_image(written(soft, "PNG"), "") != wanted).sum() < 0.02 * wanted.sum()


def coloured(*colours):
    image = Image.fromarray(labels(*range(1, 1 + len(colours))))
    image.putpalette([0, 0, 0, *(v for colour in colours for v in colour)])
    return image


@pytest.mark.parametrize(
    ("image", "form"),
    [
        (labels(1, 2), "PNG"),
        (labels(15, 255), "PNG"),  # the second the label that many use for edges
        (labels(1000, 2000, dtype=np.uint16), "PNG"),
        (labels(0.2, 0.9, dtype=np.float32), "TIFF"),
        (coloured((128, 0, 0), (0, 128, 0)), "PNG"),
        (coloured((255, 0, 0), (0, 255, 0)), "GIF"),
        (coloured((255, 0, 0), (0, 255, 0)).convert("RGB"), "PNG"),
        (labels(80, 160, 240), "JPEG"),
        (labels(200, 255), "WEBP"),
        (labels(3, 4), "WEBP"),
        (labels(50, 255), "JPEG"),
    ],
)
def test_a_map_of_labels_is_refused(image, form):
    with pytest.raises(RegionError, match=r"labels\.x holds areas of several greys or colours, as a map of labels does"):
        of_image(written(image, form), "labels.x")


def test_an_object_on_black_is_refused_since_half_of_its_lightest_is_no_edge():
    shades = np.random.default_rng(0).integers(40, 256, (90, 120), dtype=np.uint8)
    cut_out = np.where(np.asarray(ellipse()) != 0, shades, np.uint8(0))
    with pytest.raises(RegionError, match=r"cup\.png holds shades over whole areas, wider than an edge"):
        of_image(written(cut_out, "PNG"), "cup.png")


def test_a_file_with_nan_is_refused():
    soft = labels(1, dtype=np.float32)
    soft[7, 12] = np.nan
    with pytest.raises(RegionError, match=r"m\.tiff holds NaN"):
        of_image(written(soft, "TIFF"), "m.tiff")


def test_black_and_one_other_colour_is_a_mask_whatever_the_colour():
    drawn = coloured((0, 0, 1)).convert("RGB")
    for form in ("PNG", "WEBP"):
        np.testing.assert_array_equal(of_image(written(drawn, form, lossless=True), ""), np.asarray(drawn)[..., 2] != 0)
