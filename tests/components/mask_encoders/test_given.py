from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image as PILImage

from components import rle
from components.mask_encoders.base import Prompt
from components.mask_encoders.given import Given, box_edges
from components.rle import RegionError

HEIGHT, WIDTH = 6, 9
IMAGE = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)


def draw(**prompt):
    """As a mask; the run-length code is of the same mask, or refused in the same words."""
    prompts = [Prompt(**prompt)]
    try:
        mask = Given().forward(IMAGE, prompts)[0]
    except RegionError as error:
        with pytest.raises(RegionError, match=re.escape(str(error))):
            Given().codes(IMAGE, prompts)
        raise
    np.testing.assert_array_equal(rle.decode(Given().codes(IMAGE, prompts)[0]), mask)
    return mask


def rectangle(left, top, right, bottom):
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def save(path, array, mode=None, **options):
    PILImage.fromarray(array, mode).save(path, **options) if mode else PILImage.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize(
    ("box", "edges"),
    [
        ((2, 1, 3, 4), (2, 1, 5, 5)),
        ((8, 5, 1, 1), (8, 5, 9, 6)),
        ((-5, -5, 7, 6), (0, 0, 2, 1)),
        ((0, 0, 1e9, 1e9), (0, 0, WIDTH, HEIGHT)),
        ((1.4, 1.5, 2.0, 2.0), (1, 1, 3, 3)),  # centres at 1.5 and 2.5; an upper edge at a centre leaves it out
        ((1.51, 1.51, 2.0, 2.0), (2, 2, 4, 4)),
        ((2.0, 1.0, 3.0000001, 3.9999999), (2, 1, 5, 5)),
        ((3.6, 2.6, 0.2, 0.2), (3, 2, 4, 3)),  # holds no centre
        ((8.9, 5.9, 5, 5), (8, 5, 9, 6)),
    ],
)
def test_box_owns_the_pixels_whose_centres_it_holds(box, edges):
    assert box_edges(box, (HEIGHT, WIDTH)) == edges
    np.testing.assert_array_equal(draw(box=box), rectangle(*edges))


def test_boxes_that_share_an_edge_share_no_pixel():
    rng = np.random.default_rng(0)
    for cut in rng.uniform(0.6, WIDTH - 0.6, 50):
        halves = draw(box=(0, 0, cut, HEIGHT)).astype(int) + draw(box=(cut, 0, WIDTH - cut, HEIGHT))
        assert (halves == 1).all()


@pytest.mark.parametrize("box", [(9, 0, 2, 2), (0, 6, 2, 2), (-3, 0, 3, 2), (0, -4.5, 2, 4.5)])
def test_a_box_outside_is_refused(box):
    with pytest.raises(RegionError, match="lies outside the image of 9 x 6 pixels"):
        draw(box=box)


@pytest.mark.parametrize("box", [(1, 2, 3), (1, 2, float("nan"), 3), (0, 0, float("inf"), 3)])
def test_a_malformed_box_is_refused(box):
    with pytest.raises(RegionError, match="four finite numbers"):
        draw(box=box)


@pytest.mark.parametrize("box", [(1, 2, 0, 3), (4, 4, -2, 1)])
def test_a_box_without_area_is_refused(box):
    with pytest.raises(
        RegionError, match=r"a box is left, top, width, height, got a width of .*if these are corners.*40 30 160 120 is 40 30 120 90"
    ):
        draw(box=box)


def test_polygon():
    np.testing.assert_array_equal(draw(polygon=[[2, 1, 5, 1, 5, 4, 2, 4]]), rectangle(2, 1, 5, 4))


def test_polygon_is_the_union_of_its_rings():
    rings = [[0, 0, 2, 0, 2, 2, 0, 2], [1, 1, 4, 1, 4, 3, 1, 3]]
    np.testing.assert_array_equal(draw(polygon=rings), draw(polygon=rings[:1]) | draw(polygon=rings[1:]))


@pytest.mark.parametrize("as_array", [False, True])
def test_a_polygon_of_points_is_one_ring(as_array):
    points = [(2, 1), (5, 1), (5, 4), (2, 4)]
    np.testing.assert_array_equal(draw(polygon=np.array(points) if as_array else points), rectangle(2, 1, 5, 4))


def test_polygon_is_cut_to_the_image():
    np.testing.assert_array_equal(draw(polygon=[[-5, -5, 4, -5, 4, 4, -5, 4]]), rectangle(0, 0, 4, 4))


@pytest.mark.parametrize(
    "prompt", [{"polygon": [[3, 3, 4, 3, 4, 4, 3, 4]]}, {"box": (3, 3, 1, 1)}, {"rle": rle.encode(rectangle(3, 3, 4, 4))}]
)
def test_one_pixel_is_a_region(prompt):
    np.testing.assert_array_equal(draw(**prompt), rectangle(3, 3, 4, 4))


@pytest.mark.parametrize("ring", [[1, 2, 3, 4], [1, 2, 3, 4, 5, 6, 7], [0, 0, 1, 0, float("nan"), 1], 3.0])
def test_a_malformed_ring_is_refused(ring):
    with pytest.raises(RegionError, match="at least three finite points"):
        draw(polygon=[ring])


@pytest.mark.parametrize("ring", [["a", "b", "c", "d", "e", "f"], [[0, 0], [1, 1, 1]]])
def test_a_ring_of_no_numbers_is_refused(ring):
    with pytest.raises(RegionError, match=r"a polygon's ring is \[x0, y0"):
        draw(polygon=[ring])


def test_a_polygon_without_rings_is_refused():
    with pytest.raises(RegionError, match="at least one ring"):
        draw(polygon=[])


@pytest.mark.parametrize("far", [3e6, 1e15])
def test_a_polygon_beyond_all_images_is_refused(far):
    with pytest.raises(RegionError, match="reaches too far"):
        draw(polygon=[[0, 0, far, 0, far, far]])


@pytest.mark.parametrize("ring", [[20, 20, 30, 20, 30, 30], [0, 0, 0.2, 0, 0.2, 0.2]])
def test_a_polygon_that_covers_nothing_is_refused(ring):
    with pytest.raises(RegionError, match=r"the region \(polygon\) covers no pixel of the image of 9 x 6"):
        draw(polygon=[ring])


def test_rle_compressed_and_not():
    mask = np.random.default_rng(0).random((HEIGHT, WIDTH)) < 0.5
    np.testing.assert_array_equal(draw(rle=rle.encode(mask)), mask)
    np.testing.assert_array_equal(draw(rle={"size": [6, 9], "counts": [6, 12, 36]}), rectangle(1, 0, 3, 6))


def test_rle_of_another_size_is_refused_with_both_sizes():
    with pytest.raises(RegionError, match="RLE is 6 x 9 pixels, the image is 9 x 6"):
        draw(rle=rle.encode(np.ones((9, 6))))


def test_malformed_rle_is_refused():
    with pytest.raises(RegionError, match="malformed RLE counts"):
        draw(rle={"size": [6, 9], "counts": "garbage!"})


@pytest.mark.parametrize("prompt", [{"rle": rle.encode(np.zeros((HEIGHT, WIDTH)))}, {"mask": np.zeros((HEIGHT, WIDTH))}])
def test_an_empty_region_is_refused(prompt):
    with pytest.raises(RegionError, match="covers no pixel"):
        draw(**prompt)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int32, np.uint16, np.float32])
def test_mask_array_any_nonzero_is_inside(dtype):
    array = (rectangle(1, 1, 4, 3) * (1 if dtype is np.float32 else 7)).astype(dtype)
    np.testing.assert_array_equal(draw(mask=array), rectangle(1, 1, 4, 3))


def test_mask_array_of_another_size_is_refused():
    with pytest.raises(RegionError, match="mask is 6 x 9 pixels, the image is 9 x 6"):
        draw(mask=np.ones((9, 6)))


@pytest.mark.parametrize("mask", [np.ones((HEIGHT, WIDTH, 3)), np.full((HEIGHT, WIDTH), "x")])
def test_what_is_no_mask_array_is_refused(mask):
    with pytest.raises(RegionError, match=r"a mask is a \(height, width\) array of numbers"):
        draw(mask=mask)


def test_a_map_of_labels_is_no_mask(tmp_path):
    labels = rectangle(1, 1, 4, 5) + 2 * rectangle(5, 1, 9, 5).astype(np.uint8)
    with pytest.raises(RegionError, match=r"a mask of integers holds 0 and one other value, got 0, 1, 2: .* labels == k"):
        draw(mask=labels)
    with pytest.raises(RegionError, match=r"mask file .*labels\.png holds areas of several greys or colours"):
        draw(mask=save(tmp_path / "labels.png", labels))


@pytest.mark.parametrize("as_text", [True, False])
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16, np.int32])
def test_mask_file_any_nonzero_is_inside(tmp_path, dtype, as_text):
    suffix = "tiff" if dtype is np.int32 else "png"
    path = save(tmp_path / f"mask.{suffix}", rectangle(1, 1, 4, 3).astype(dtype))
    np.testing.assert_array_equal(draw(mask=str(path) if as_text else path), rectangle(1, 1, 4, 3))


def test_mask_file_in_colour_is_inside_where_not_black(tmp_path):
    colour = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    colour[1:3, 1:4, 2] = 1
    np.testing.assert_array_equal(draw(mask=save(tmp_path / "mask.png", colour)), rectangle(1, 1, 4, 3))


def test_mask_file_with_a_palette_is_read_by_colour(tmp_path):
    image = PILImage.fromarray(rectangle(1, 1, 4, 3).astype(np.uint8))
    image.putpalette([0, 0, 0, 128, 0, 0])
    image.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(draw(mask=tmp_path / "mask.png"), rectangle(1, 1, 4, 3))


def test_mask_file_with_transparency_is_inside_where_it_shows(tmp_path):
    cutout = np.zeros((HEIGHT, WIDTH, 4), dtype=np.uint8)
    cutout[1:3, 1:4, 3] = 255  # black, but opaque
    np.testing.assert_array_equal(draw(mask=save(tmp_path / "mask.png", cutout)), rectangle(1, 1, 4, 3))


def test_mask_file_with_opaque_alpha_is_read_by_colour(tmp_path):
    opaque = np.zeros((HEIGHT, WIDTH, 4), dtype=np.uint8)
    opaque[..., 3] = 255
    opaque[1:3, 1:4, 0] = 9
    np.testing.assert_array_equal(draw(mask=save(tmp_path / "mask.png", opaque)), rectangle(1, 1, 4, 3))


def test_mask_file_is_turned_as_its_exif_says(tmp_path):
    image = PILImage.fromarray(np.ascontiguousarray(np.rot90(rectangle(1, 1, 4, 3))).astype(np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6  # turn clockwise to see it upright
    image.save(tmp_path / "mask.png", exif=exif)
    np.testing.assert_array_equal(draw(mask=tmp_path / "mask.png"), rectangle(1, 1, 4, 3))


@pytest.mark.parametrize("shape", [(12, 12), (WIDTH, HEIGHT)])
def test_mask_file_of_another_size_is_refused(tmp_path, shape):
    path = save(tmp_path / "mask.png", np.ones(shape, dtype=np.uint8))
    with pytest.raises(RegionError, match=rf"mask\.png is {shape[1]} x {shape[0]} pixels, the image is 9 x 6"):
        draw(mask=path)


def test_an_unreadable_mask_file_is_refused(tmp_path):
    whole = save(tmp_path / "whole.png", np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)).read_bytes()
    (tmp_path / "truncated.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("no image")
    for name in ("truncated.png", "text.png", "missing.png", "."):
        with pytest.raises(RegionError, match=r"cannot be read.*check the path"):
            draw(mask=tmp_path / name)


def test_a_point_is_refused_by_name():
    with pytest.raises(RegionError, match="'given' cannot grow a region from a point: use superpixel or sam"):
        draw(point=(1, 1))


def test_it_cannot_propose():
    assert not Given().can_propose
    with pytest.raises(NotImplementedError, match="Given cannot propose regions by itself: use superpixel or sam"):
        Given().propose(IMAGE)
