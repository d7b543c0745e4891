"""What every mask encoder promises; plugins are found on disk, so that a new one is tested without an edit here."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from components import rle
from components.mask_encoders.base import MASK_ENCODERS, MaskEncoder, Prompt, image_size
from components.rle import RegionError

HEIGHT, WIDTH = 48, 64


def picture() -> np.ndarray:
    """Four patches of colour under a little noise."""
    image = np.random.default_rng(0).integers(0, 32, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    image[:24, 32:, 0] += 200
    image[24:, :32, 1] += 200
    image[24:, 32:, 2] += 200
    return image


def drawn() -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[4:20, 8:25] = True
    return mask


DRAWN = [Prompt(polygon=[[8, 4, 25, 4, 25, 20, 8, 20]]), Prompt(rle=rle.encode(drawn())), Prompt(mask=drawn())]
BOX, POINT = Prompt(box=(1, 1, 50, 40)), Prompt(point=(10.5, 12.5))


@pytest.fixture(params=MASK_ENCODERS.names())
def build(request):
    """A function that builds the plugin, always with the same random weights."""
    try:
        options = MASK_ENCODERS.get(request.param).tiny()
    except ImportError as error:
        pytest.skip(str(error))

    def new() -> MaskEncoder:
        torch.manual_seed(0)
        encoder = MASK_ENCODERS.build({"plugin": request.param, **options})
        encoder.load_pretrained()
        return encoder

    return new


def understood(encoder: MaskEncoder) -> list[Prompt]:
    """Every sort of prompt; a point only where the encoder does not refuse it by name."""
    try:
        encoder.forward(picture(), [POINT])
    except RegionError as error:
        if "cannot grow a region from a point: use" not in str(error):
            raise
        return [*DRAWN, BOX]
    return [*DRAWN, BOX, POINT]


def test_the_plugins_are_on_disk():
    assert {"given", "superpixel", "sam"} <= set(MASK_ENCODERS.names())


def test_one_non_empty_mask_per_prompt(build):
    encoder = build()
    prompts = understood(encoder)
    masks = encoder.forward(picture(), prompts)
    assert masks.shape == (len(prompts), HEIGHT, WIDTH)
    assert masks.dtype == np.bool_
    assert masks.any(axis=(1, 2)).all()


def test_drawn_regions_are_taken_as_they_are(build):
    for mask in build().forward(picture(), DRAWN):
        np.testing.assert_array_equal(mask, drawn())


def test_batched_prompts_equal_single_prompts_in_any_order(build):
    encoder = build()
    prompts = understood(encoder)
    masks = encoder.forward(picture(), prompts)
    for n in np.random.default_rng(0).permutation(len(prompts)):
        np.testing.assert_array_equal(encoder.forward(picture(), [prompts[n]])[0], masks[n])


def test_codes_are_those_of_the_masks(build):
    encoder = build()
    prompts = understood(encoder)
    for code, mask in zip(encoder.codes(picture(), prompts), encoder.forward(picture(), prompts), strict=True):
        np.testing.assert_array_equal(rle.decode(code), mask)


def test_deterministic(build):
    encoder, twin = build(), build()
    prompts = understood(encoder)
    masks = encoder.forward(picture(), prompts)
    np.testing.assert_array_equal(encoder.forward(picture(), prompts), masks)
    np.testing.assert_array_equal(twin.forward(picture(), prompts), masks)


def test_no_prompts_no_masks(build):
    assert build().forward(picture(), []).shape == (0, HEIGHT, WIDTH)


def test_the_image_is_left_as_it_was(build):
    encoder, image = build(), picture()
    image.setflags(write=False)
    encoder.forward(image, understood(encoder))
    if encoder.can_propose:
        encoder.propose(image)


def test_proposals(build):
    encoder = build()
    if not encoder.can_propose:
        with pytest.raises(NotImplementedError, match="cannot propose regions by itself: use"):
            encoder.propose(picture())
        return
    masks = encoder.propose(picture())
    assert masks.shape[1:] == (HEIGHT, WIDTH)
    assert masks.dtype == np.bool_
    assert masks.any(axis=(1, 2)).all()
    assert len(np.unique(masks.reshape(len(masks), -1), axis=0)) == len(masks) >= 1
    np.testing.assert_array_equal(build().propose(picture()), masks)
    assert list(build().propose_codes(picture())) == [rle.encode(mask) for mask in masks]


@pytest.mark.parametrize(
    "prompt", [Prompt(box=(64, 0, 4, 4)), Prompt(rle=rle.encode(np.ones((5, 5)))), Prompt(mask=np.zeros((HEIGHT, WIDTH)))]
)
def test_unusable_regions_are_refused(build, prompt):
    with pytest.raises(RegionError, match=r"lies outside the image|5 x 5 pixels, the image is|covers no pixel"):
        build().forward(picture(), [DRAWN[0], prompt])


@pytest.mark.parametrize("prompt", [Prompt(), Prompt(box=(0, 0, 4, 4), point=(1, 1))])
def test_a_region_is_said_in_exactly_one_way(build, prompt):
    with pytest.raises(RegionError, match="said in exactly one way"):
        build().forward(picture(), [BOX, prompt])


@pytest.mark.parametrize(
    "image", [np.zeros((5, 5), np.uint8), np.zeros((5, 5, 4), np.uint8), np.zeros((5, 5, 3)), np.zeros((0, 5, 3), np.uint8)]
)
def test_what_is_no_image_is_refused(build, image):
    with pytest.raises(ValueError, match=r"an image is \(height, width, 3\) uint8 RGB"):
        build().forward(image, [BOX])


def test_image_size_is_height_then_width():
    assert image_size(picture()) == (HEIGHT, WIDTH)


def test_one_that_was_used_travels_to_another_process(build):
    encoder = build()
    with encoder.turn:
        expected = encoder.forward(picture(), [BOX])
        if encoder.can_propose:
            encoder.propose(picture())
    travelled = pickle.loads(pickle.dumps(encoder))
    assert np.array_equal(travelled.forward(picture(), [BOX]), expected)
