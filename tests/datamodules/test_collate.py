from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from components import rle
from components.preprocess import Preprocess, prepare_image, prepare_regions
from datamodules.collate import Collate
from datamodules.records import ImageRecord, RegionRecord
from datamodules.samples import RoiSample

PREPROCESS = Preprocess(16, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
CROP = 8


def sample(name: str, height: int, width: int, known: list[dict]) -> RoiSample:
    """Regions are horizontal bands, as many as there are labels."""
    rng = np.random.default_rng(height * width)
    regions = []
    for r, labels in enumerate(known):
        mask = np.zeros((height, width), bool)
        mask[r * height // len(known) : (r + 1) * height // len(known)] = True
        regions.append(RegionRecord(f"{name}-{r}", rle.encode(mask)["counts"], **labels))
    image = torch.from_numpy(rng.integers(0, 256, (3, height, width), dtype=np.uint8))
    return RoiSample(image, ImageRecord(name, name, "train", height, width, tuple(regions), b""))


TWO = sample(
    "two", 20, 30, [{"quality": 0.5, "quality_std": 0.1, "distortions": (("blur", "minor"),)}, {"importance": 1, "distortions": ()}]
)
THREE = sample("three", 33, 21, [{"quality": 1}, {"importance_std": 0.25}, {"quality": 0.125, "importance": 0.75}])


def test_the_geometry_is_the_scorers():
    batch = Collate(PREPROCESS, CROP)([TWO, THREE])
    assert batch.images.shape == (2, 3, 16, 16)
    assert batch.regions.masks.shape == (2, 3, 16, 16)
    assert batch.regions.crops.shape == (2, 3, 3, CROP, CROP)
    assert batch.regions.valid.tolist() == [[True, True, False], [True, True, True]]
    torch.testing.assert_close(batch.images[1], prepare_image(THREE.image, PREPROCESS))
    expected = prepare_regions(THREE.image, THREE.masks(), PREPROCESS, CROP)
    for field in dataclasses.fields(expected):
        torch.testing.assert_close(getattr(batch.regions, field.name)[1], getattr(expected, field.name))


def test_no_crops_where_none_are_wanted():
    assert Collate(PREPROCESS, 0)([TWO]).regions.crops.shape == (1, 2, 3, 0, 0)


def test_labels_stand_with_their_regions_and_the_rest_is_nan():
    batch = Collate(PREPROCESS, CROP)([TWO, THREE])
    nan = float("nan")
    for found, expected in (
        (batch.labels.quality, [[0.5, nan, nan], [1, nan, 0.125]]),
        (batch.labels.quality_std, [[0.1, nan, nan], [nan, nan, nan]]),
        (batch.labels.importance, [[nan, 1, nan], [nan, nan, 0.75]]),
        (batch.labels.importance_std, [[nan, nan, nan], [nan, 0.25, nan]]),
    ):
        torch.testing.assert_close(found, torch.tensor(expected), equal_nan=True)
    assert batch.labels.distortions == (((("blur", "minor"),), ()), (None, None, None))
    assert batch.ids == (("two-0", "two-1"), ("three-0", "three-1", "three-2"))


def test_whole_numbers_are_scores_too():
    batch = Collate(PREPROCESS, CROP)([sample("a", 8, 8, [{"quality": 1}, {"quality": 0}])])
    torch.testing.assert_close(batch.labels.quality, torch.tensor([[1.0, 0.0]]))


def test_whole_is_the_image_in_place_of_its_regions_without_labels():
    whole = Collate(PREPROCESS, CROP, whole=True)([TWO, THREE])
    torch.testing.assert_close(whole.images, Collate(PREPROCESS, CROP)([TWO, THREE]).images)
    assert whole.regions.valid.tolist() == [[True], [True]]
    assert whole.regions.masks.all()
    assert whole.regions.boxes.tolist() == [[[0, 0, 1, 1]]] * 2
    assert whole.regions.areas.tolist() == [[1], [1]]
    for b in range(2):
        torch.testing.assert_close(whole.regions.crops[b, 0], prepare_image((TWO, THREE)[b].image, PREPROCESS, CROP))
    assert whole.labels.quality.isnan().all()
    assert whole.labels.importance.isnan().all()
    assert whole.labels.distortions == ((None,), (None,))
    assert whole.ids == (("two",), ("three",))


@pytest.mark.parametrize("whole", [False, True])
def test_batched_equals_single(whole):
    collate = Collate(PREPROCESS, CROP, whole)
    batch = collate([TWO, THREE])
    for b, one in enumerate((TWO, THREE)):
        single = collate([one])
        count = single.regions.valid.shape[1]
        torch.testing.assert_close(batch.images[b], single.images[0])
        for field in dataclasses.fields(single.regions):
            torch.testing.assert_close(getattr(batch.regions, field.name)[b, :count], getattr(single.regions, field.name)[0])
        for name in ("quality", "quality_std", "importance", "importance_std"):
            torch.testing.assert_close(getattr(batch.labels, name)[b, :count], getattr(single.labels, name)[0], equal_nan=True)
        assert batch.labels.distortions[b] == single.labels.distortions[0]
        assert batch.ids[b] == single.ids[0]


def test_padding_is_empty():
    batch = Collate(PREPROCESS, CROP)([TWO, THREE])
    assert not batch.regions.masks[0, 2].any()
    assert (batch.regions.crops[0, 2] == 0).all()
    assert (batch.regions.boxes[0, 2] == 0).all()
    assert batch.regions.areas[0, 2] == 0


def test_an_image_without_regions():
    none = RoiSample(TWO.image, ImageRecord("none", "s", "val", 20, 30, (), b""))
    batch = Collate(PREPROCESS, CROP)([none, TWO])
    assert batch.regions.valid.tolist() == [[False, False], [True, True]]
    assert batch.ids == ((), ("two-0", "two-1"))
    assert Collate(PREPROCESS, CROP, whole=True)([none]).regions.valid.tolist() == [[True]]


def test_the_batch_goes_to_a_device_whole():
    batch = Collate(PREPROCESS, CROP)([TWO]).to("meta")
    assert batch.images.is_meta
    assert batch.regions.masks.is_meta
    assert batch.labels.quality.is_meta


@pytest.mark.parametrize("whole", [False, True])
def test_clean_crops_are_the_crops_of_the_clean_image(whole):
    collate = Collate(PREPROCESS, CROP, whole)
    paired = [dataclasses.replace(s, clean=255 - s.image) for s in (TWO, THREE)]
    clean = collate([dataclasses.replace(s, image=255 - s.image) for s in (TWO, THREE)])
    batch = collate(paired)
    assert torch.equal(batch.clean, clean.regions.crops)
    assert torch.equal(batch.regions.crops, collate([TWO, THREE]).regions.crops)


def test_clean_crops_are_unknown_where_one_image_lacks_them_or_nobody_crops():
    paired = dataclasses.replace(TWO, clean=255 - TWO.image)
    assert Collate(PREPROCESS, CROP)([paired, THREE]).clean is None
    assert Collate(PREPROCESS, 0)([paired]).clean is None


def test_a_clean_image_of_another_size_is_refused():
    with pytest.raises(ValueError, match="image two has 30 x 19 pixels"):
        Collate(PREPROCESS, CROP)([dataclasses.replace(TWO, clean=TWO.image[:, 1:])])


@pytest.mark.parametrize("whole", [False, True])
def test_native_images_come_along_as_they_are_where_they_are_wanted(whole):
    collate = Collate(dataclasses.replace(PREPROCESS, native=True), 0, whole)
    turned = dataclasses.replace(TWO, clean=TWO.image).turned(5)
    batch = collate([turned, THREE])
    assert [tuple(image.shape) for image in batch.native] == [(3, 30, 20), (3, 33, 21)]
    assert torch.equal(batch.native[0], turned.image)
    assert torch.equal(batch.native[1], THREE.image)
    assert batch.regions.crops.numel() == 0
    assert batch.clean is None
    assert Collate(PREPROCESS, CROP, whole)([TWO, THREE]).native == ()
