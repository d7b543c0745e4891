from __future__ import annotations

import numpy as np
import pytest

from components.mask_encoders.base import MASK_ENCODERS, MaskEncoder
from components.rle import RegionError
from datamodules.proposals import propose_regions

SIDE = 24
IMAGE = np.zeros((SIDE, SIDE, 3), np.uint8)


class Squares(MaskEncoder):
    """Proposes three nested squares; a box becomes itself; a point the square of four pixels around it, or nothing on the left."""

    can_propose = True

    def __init__(self, parted: bool = False) -> None:
        self.parted, self.calls = parted, 0

    def propose(self, image):
        if self.parted:
            return (np.indices((SIDE, SIDE))[1] // 6) == np.arange(4)[:, None, None]
        masks = np.zeros((3, SIDE, SIDE), bool)
        masks[0, 4:8, 4:8] = masks[1, :16, :16] = masks[2, 2:12, 2:12] = True
        return masks

    def forward(self, image, prompts):
        self.calls += 1
        masks = np.zeros((len(prompts), SIDE, SIDE), bool)
        for mask, prompt in zip(masks, prompts, strict=True):
            if prompt.box is not None:
                x, y, w, h = map(int, prompt.box)
                mask[y : y + h, x : x + w] = True
            else:
                x, y = map(int, prompt.point)
                if x < 8:
                    raise RegionError("nothing here")
                mask[max(0, y - 1) : y + 1, x - 1 : x + 1] = True
        return masks

    @classmethod
    def tiny(cls):
        return {}


def proposed(encoder, objects=0, components=0, min_area=0.0, seed=0):
    return propose_regions(IMAGE, encoder, objects, components, min_area, np.random.default_rng(seed))


def test_objects_are_the_boxes_of_the_largest_proposals():
    names, masks = proposed(Squares(), objects=2)
    assert names == ["object-0", "object-1"]
    assert masks.sum((1, 2)).tolist() == [256, 100]


def test_of_patches_neighbours_are_joined():
    names, masks = proposed(Squares(parted=True), objects=2)
    assert len(names) == 2
    np.testing.assert_array_equal(masks.sum(0), 1)


def test_components_are_what_is_at_random_points():
    names, masks = proposed(Squares(), components=30)
    assert all(n.startswith("component-") for n in names)
    assert 8 < len(names) < 30  # a third of the image holds nothing
    again = proposed(Squares(), components=30)
    np.testing.assert_array_equal(masks, again[1])
    assert not np.array_equal(masks[:5], proposed(Squares(), components=30, seed=1)[1][:5])


def test_where_nothing_fails_the_encoder_is_asked_once():
    encoder = Squares()
    proposed(encoder, objects=3)
    assert encoder.calls == 1


def test_small_and_repeated_regions_are_left_out():
    assert proposed(Squares(), objects=3, min_area=0.1)[0] == ["object-0", "object-1"]
    assert proposed(Squares(), components=2000)[1].shape[0] == len({m.tobytes() for m in proposed(Squares(), components=2000)[1]})


def test_nothing_found_is_no_region():
    names, masks = proposed(Squares(), components=4, min_area=0.9)
    assert names == []
    assert masks.shape == (0, SIDE, SIDE)


@pytest.mark.parametrize("name", ["superpixel", "sam"])
def test_with_real_encoders_there_are_objects_and_components(photograph, name):
    encoder = MASK_ENCODERS.build({"plugin": name, **MASK_ENCODERS.get(name).tiny()})
    names, masks = propose_regions(photograph, encoder, 2, 6, 0.0, np.random.default_rng(0))
    assert {n.partition("-")[0] for n in names} == {"object", "component"}
    assert masks.any((1, 2)).all()
