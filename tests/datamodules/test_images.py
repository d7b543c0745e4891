from __future__ import annotations

import warnings

import numpy as np
import pytest
from PIL import Image

from datamodules import images
from datamodules.images import ImageError, decode_image, image_bytes, list_images, load_image

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def save(path, image, **options):
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    image.save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp", "ppm", "tiff", "webp"])
@pytest.mark.parametrize("as_text", [True, False])
def test_rgb_comes_back_unchanged(tmp_path, suffix, as_text):
    path = save(tmp_path / f"image.{suffix}", RGB, **({"lossless": True} if suffix == "webp" else {}))
    loaded = load_image(str(path) if as_text else path)
    assert loaded.dtype == np.uint8
    assert loaded.flags.writeable
    assert loaded.flags.c_contiguous
    np.testing.assert_array_equal(loaded, RGB)


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda a: a),
        (2, np.fliplr),
        (3, lambda a: np.rot90(a, 2)),
        (4, np.flipud),
        (5, lambda a: a.transpose(1, 0, 2)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: np.rot90(a, 2).transpose(1, 0, 2)),
        (8, np.rot90),
    ],
)
def test_turned_as_exif_says(tmp_path, orientation, upright):
    image = Image.fromarray(RGB)
    exif = image.getexif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(load_image(save(tmp_path / "image.png", image, exif=exif)), upright(RGB))


def test_greyscale_becomes_three_equal_channels(tmp_path):
    grey = RGB[..., 0]
    np.testing.assert_array_equal(load_image(save(tmp_path / "image.png", grey)), np.dstack([grey] * 3))


def test_one_bit_becomes_black_and_white(tmp_path):
    bits = RGB[..., 0] > 127
    np.testing.assert_array_equal(load_image(save(tmp_path / "image.png", bits)), np.dstack([bits * np.uint8(255)] * 3))


def test_palette_becomes_its_colours(tmp_path):
    image = Image.fromarray((RGB[..., 0] > 127).astype(np.uint8))
    image.putpalette([10, 20, 30, 40, 50, 60])
    colours = np.array([[10, 20, 30], [40, 50, 60]])
    np.testing.assert_array_equal(load_image(save(tmp_path / "image.png", image)), colours[(RGB[..., 0] > 127).astype(int)])


def test_transparent_pixels_show_the_backdrop(tmp_path):
    alpha = np.full((5, 7), 255, dtype=np.uint8)
    alpha[0], alpha[1] = 0, 128
    loaded = load_image(save(tmp_path / "image.png", np.dstack([RGB, alpha])))
    assert (loaded[0] == images.BACKDROP).all()
    np.testing.assert_allclose(loaded[1], RGB[1] * (128 / 255) + 255 * (127 / 255), atol=1)
    np.testing.assert_array_equal(loaded[2:], RGB[2:])


def test_transparency_of_grey_and_palette_images(tmp_path):
    grey_alpha = np.dstack([RGB[..., 0], np.zeros((5, 7), np.uint8)])
    assert (load_image(save(tmp_path / "grey.png", grey_alpha)) == images.BACKDROP).all()
    palette = Image.fromarray(np.zeros((5, 7), np.uint8))
    palette.putpalette([10, 20, 30])
    assert (load_image(save(tmp_path / "palette.png", palette, transparency=0)) == images.BACKDROP).all()


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path, suffix):
    grey = np.array([[0, 128, 257 * 100, 257 * 100 + 128, 257 * 100 + 129, 65535]], dtype=np.uint16)
    loaded = load_image(save(tmp_path / f"image.{suffix}", grey))
    np.testing.assert_array_equal(loaded[..., 1], [[0, 0, 100, 100, 101, 255]])


def test_sixteen_bits_of_the_other_byte_order(tmp_path):
    grey = np.array([[0, 257 * 100, 65535]], dtype=">u2")
    image = Image.frombytes("I;16B", (3, 1), grey.tobytes())
    np.testing.assert_array_equal(load_image(save(tmp_path / "image.tiff", image))[..., 0], [[0, 100, 255]])


def test_thirty_two_bits_that_hold_sixteen(tmp_path):
    grey = np.array([[0, 257 * 100, 65535]], dtype=np.int32)
    np.testing.assert_array_equal(load_image(save(tmp_path / "image.tiff", grey))[..., 0], [[0, 100, 255]])


@pytest.mark.parametrize("level", [-1, 65536])
def test_wider_integers_are_refused(tmp_path, level):
    path = save(tmp_path / "image.tiff", np.array([[0, level]], dtype=np.int32))
    with pytest.raises(ImageError, match=r"image\.tiff holds integers from .* not 16-bit grey levels"):
        load_image(path)


def test_floating_point_is_refused(tmp_path):
    path = save(tmp_path / "image.tiff", np.array([[0.0, 1.0]], dtype=np.float32))
    with pytest.raises(ImageError, match=r"image\.tiff holds floating-point values.*convert it"):
        load_image(path)


def test_cmyk_becomes_rgb(tmp_path):
    ink = Image.new("CMYK", (7, 5), (255, 0, 0, 0))
    assert (load_image(save(tmp_path / "image.tiff", ink)) == (0, 255, 255)).all()


def test_the_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (7, 5), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    for suffix in ("gif", "png", "webp"):
        path = save(
            tmp_path / f"image.{suffix}",
            frames[0],
            save_all=True,
            append_images=frames[1:],
            **({"lossless": True} if suffix == "webp" else {}),
        )
        assert (load_image(path) == (255, 0, 0)).all()


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff"])
def test_a_truncated_image_is_refused(tmp_path, suffix):
    path = save(tmp_path / f"image.{suffix}", np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageError, match=rf"image\.{suffix} (cannot be decoded .*truncated or damaged|is not an image)"):
        load_image(path)


@pytest.mark.parametrize("content", [b"", b"not an image"])
def test_what_is_no_image_is_refused(tmp_path, content):
    (tmp_path / "image.jpg").write_bytes(content)
    with pytest.raises(ImageError, match=r"image\.jpg is not an image that Pillow can read: remove it from the list"):
        load_image(tmp_path / "image.jpg")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ImageError, match=r"nowhere\.png does not exist: check the path"):
        load_image(tmp_path / "nowhere.png")


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(ImageError, match="is a folder: see list_images"):
        load_image(tmp_path)


def test_the_bytes_of_a_file_are_those_that_are_decoded(tmp_path, monkeypatch):
    path = save(tmp_path / "image.png", RGB)
    np.testing.assert_array_equal(decode_image(image_bytes(path), "image"), load_image(path))
    for missing in (tmp_path, tmp_path / "nowhere.png"):
        with pytest.raises(ImageError, match=r"is a folder|does not exist"):
            image_bytes(missing)

    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "read_bytes", refuse)
    with pytest.raises(ImageError, match=r"image\.png cannot be read \(Permission denied\): check who may read it"):
        image_bytes(path)


def test_damaged_files_raise_nothing_but_image_error(tmp_path):
    rng = np.random.default_rng(0)
    for suffix in ("png", "jpg", "gif", "bmp", "webp"):
        whole = save(tmp_path / f"image.{suffix}", RGB).read_bytes()
        for _ in range(20):
            damaged = bytearray(whole)
            for at in rng.integers(0, len(whole), 4):
                damaged[at] = rng.integers(256)
            path = tmp_path / f"damaged.{suffix}"
            path.write_bytes(damaged)
            try:
                assert load_image(path, max_pixels=10**6).dtype == np.uint8
            except ImageError as error:
                if str(path) not in str(error):
                    raise


def test_memory_that_does_not_suffice_is_no_damage(tmp_path, monkeypatch):
    path = save(tmp_path / "image.png", RGB)
    monkeypatch.setattr(images, "_rgb", lambda *_: (_ for _ in ()).throw(MemoryError("out of memory")))
    with pytest.raises(MemoryError, match="out of memory"):
        load_image(path)


def test_too_many_pixels_are_refused_on_the_header(tmp_path):
    path = save(tmp_path / "image.ppm", RGB)
    header, pixels = b"P6\n40000 40000\n255\n", b"\0\0\0"  # a decoder would stumble on the missing pixels
    path.write_bytes(header + pixels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(
            ImageError, match="40000 x 40000 = 1600000000 pixels, allowed are max_pixels=100000000: reduce the image or raise"
        ):
            load_image(path)


def test_max_pixels_is_the_last_allowed(tmp_path):
    path = save(tmp_path / "image.png", RGB)
    assert load_image(path, max_pixels=35).shape == (5, 7, 3)
    with pytest.raises(ImageError, match="7 x 5 = 35 pixels, allowed are max_pixels=34"):
        load_image(path, max_pixels=34)


def test_pillows_own_limit_is_neither_used_nor_changed(tmp_path, monkeypatch):
    path = save(tmp_path / "image.png", RGB)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(load_image(path), RGB)
    assert Image.MAX_IMAGE_PIXELS == 3


def test_images_are_listed_recursively_and_sorted(tmp_path):
    for name in ("b.png", "a.JPG", "sub/c.webp", "sub/deep/d.tif", "notes.txt", "._a.jpg", "sub.d/e.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    found = [p.relative_to(tmp_path).as_posix() for p in list_images(str(tmp_path))]
    assert found == ["a.JPG", "b.png", "sub/c.webp", "sub/deep/d.tif", "sub.d/e.png"]


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(ImageError, match="nowhere does not exist: check the path"):
        list_images(tmp_path / "nowhere")


def test_a_file_is_no_folder(tmp_path):
    with pytest.raises(ImageError, match=r"image\.png is a file: see load_image"):
        list_images(save(tmp_path / "image.png", RGB))


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ImageError, match=r"holds no images: files that end in \.bmp, .*in subfolders too"):
        list_images(tmp_path)


def test_an_image_in_memory_is_the_image_in_a_file(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(images.decode_image((tmp_path / "a.png").read_bytes(), "a"), pixels)
    with pytest.raises(images.ImageError, match="member a of b is not an image that Pillow can read"):
        images.decode_image(b"text", "member a of b")
