"""Regions of a large photograph: masks of its size are made one after another where they must be, and of boxes and codes not at all."""

import tracemalloc

import numpy as np
import pytest
from PIL import Image

from components.mask_encoders.base import MASK_ENCODERS
from inference.engine import Engine
from inference.page.limits import Limits
from inference.page.service import Service
from inference.page.visit import Visit
from inference.predict import Predictor
from inference.quality_map import quality_map
from inference.requests import Asked, Request
from tests.inference.test_engine import built

SIZE = 1200, 1600
MOST = 20  # masks of the image's size whose room all else may take: pixels are three, and are copied


@pytest.fixture(scope="module")
def photo():
    """Squares of colour, so that there are many patches."""
    return np.kron(np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8), np.ones((200, 200, 1), np.uint8))


@pytest.fixture
def engine():
    """With a budget of one region at a time."""
    return Engine(built("pooled_mlp"), segmenter=MASK_ENCODERS.build({"plugin": "superpixel", "segments": 48, "min_area": 0.0}), memory=1)


def predicted(engine, photo, folder):
    Image.fromarray(photo).save(folder / "photo.bmp")
    request = Request("photo.bmp", folder / "photo.bmp", (Asked("proposed", "proposed"),))
    return Predictor(engine, engine.tasks, readers=0).one(request).codes


def mapped(engine, photo, folder):
    return quality_map(engine, photo).codes


def mapped_on_the_page(engine, photo, folder):
    return Service({"m": engine}, Limits()).map(Visit("photo.bmp", photo))[0].codes


@pytest.mark.parametrize("use", [predicted, mapped, mapped_on_the_page])
def test_proposals_are_never_all_masks_at_once(engine, photo, tmp_path, use):
    tracemalloc.start()
    codes = use(engine, photo, tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(codes) > 2 * MOST
    assert peak < MOST * SIZE[0] * SIZE[1]


def test_regions_that_need_no_mask_of_the_images_size_have_none(engine, photo):
    """A budget for all at once: on a photograph of 24 megapixels masks take most of the time of an answer."""
    engine.memory = 2048
    codes = engine.propose(photo)
    said = [[*codes], [(n, 2 * n, 900, 700) for n in range(len(codes))], [[n, n, 900, n, n, 900] for n in range(len(codes))]]
    looked = engine.look(photo)
    for regions in said:
        tracemalloc.start()
        engine.score(looked, regions)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < MOST * SIZE[0] * SIZE[1] < len(regions) / 2 * SIZE[0] * SIZE[1]
