from __future__ import annotations

import numpy as np
import pytest

from components import rle
from components.registry import ConfigError
from datamodules.distortions.base import DISTORTIONS, SETTINGS, Distortion
from datamodules.quality_labels.base import QualityLabel
from datamodules.quality_labels.local_similarity import LocalSimilarity
from datamodules.synthesis import Recipe, merge, partition, synthesize

SIDE, CELL = 24, 6  # the image, and the squares of its 4 x 4 partition
cells = (np.indices((SIDE, SIDE)) // CELL * [[[4]], [[1]]]).sum(0)
squares = cells == np.arange(16)[:, None, None]
REFERENCE = np.random.default_rng(0).integers(10, 200, (SIDE, SIDE, 3), dtype=np.uint8)


class Paint(Distortion):
    """Adds 1 + the setting, so that a pixel says what was done to it."""

    variants = ("a", "b", "c", "d")
    strengths = ((1, 5, 9, 13, 17), (2, 6, 10, 14, 18), (3, 7, 11, 15, 19), (4, 8, 12, 16, 20))

    def apply(self, image, variant, strength, rng):
        return image + np.uint8(strength)


class Fixed(QualityLabel):
    """The same score for every region."""

    version, licence = "test", "test"

    def __init__(self, quality: float = 0.5, impact: float = 0.1) -> None:
        self.quality, self.impact = quality, impact

    def region(self, distorted, reference, mask):
        return self.quality

    def image(self, distorted, reference):
        return 1 - self.impact


def made(recipe: Recipe, seed: int = 0, label: QualityLabel | None = None, masks: np.ndarray = squares):
    return synthesize(REFERENCE, masks, {"blur": Paint(), "noise": Paint()}, label or Fixed(), recipe, np.random.default_rng(seed))


def masks_of(records) -> np.ndarray:
    return np.stack([rle.decode({"size": [SIDE, SIDE], "counts": r.counts}) for r in records])


@pytest.mark.parametrize("count", [1, 2, 5, 15, 16, 99])
def test_merging_keeps_a_partition_of_connected_wholes(count):
    merged = merge(cells, count, np.random.default_rng(count))
    assert sorted(set(merged.ravel())) == list(range(min(count, 16)))
    for cell in range(16):
        assert len(set(merged[cells == cell])) == 1  # nothing is cut


def test_merging_joins_neighbours_only():
    columns = np.repeat(np.arange(8), 3)[None].repeat(4, 0)
    for seed in range(20):
        merged = merge(columns, 3, np.random.default_rng(seed))
        assert (np.diff(merged[0]) != 0).sum() == 2  # three stretches


def test_merging_differs_by_seed_and_repeats():
    results = {merge(cells, 6, np.random.default_rng(seed)).tobytes() for seed in range(8)}
    assert len(results) == 8
    assert merge(cells, 6, np.random.default_rng(3)).tobytes() in results


def test_regions_that_touch_nothing_stay_apart():
    alone = np.zeros((1, 5), int)
    np.testing.assert_array_equal(merge(alone, 4, np.random.default_rng(0)), alone)


def test_a_partition_is_taken_as_it_is():
    np.testing.assert_array_equal(partition(squares), cells)
    np.testing.assert_array_equal(partition(squares[::-1]), 15 - cells)


def test_of_overlapping_masks_the_smaller_lies_on_top_and_the_rest_is_one_region():
    masks = np.zeros((4, 8, 8), bool)
    masks[0, 1:4, 1:4] = True  # a part
    masks[1, :6, :6] = True  # its whole
    masks[2, 5:7, 5:7] = True  # half over the whole
    masks[3, 1:4, 1:4] = True  # the part again: one of the two is hidden
    parts = partition(masks)
    assert sorted(set(parts.ravel())) == [0, 1, 2, 3]
    assert len(set(parts[1:4, 1:4].ravel())) == 1
    assert parts[5, 5] == parts[6, 6] != parts[0, 0] == parts[5, 0]
    assert parts[7, 7] == parts[0, 7] == parts.max()
    assert (parts == parts[2, 2]).sum() == 9
    assert (parts == parts[0, 0]).sum() == 36 - 9 - 1


def test_proposals_that_are_no_partition_make_samples_too():
    masks = np.zeros((3, SIDE, SIDE), bool)
    masks[0, 2:20, 2:20] = masks[1, 4:9, 4:9] = masks[2, 12:18, 3:14] = True
    _, records = made(Recipe(min_area=0), masks=masks)
    assert len(records) == 4
    np.testing.assert_array_equal(masks_of(records).sum(0), 1)


def test_regions_do_not_overlap_and_are_large_enough():
    for seed in range(10):
        _, records = made(Recipe(regions=4, min_area=0.06), seed)
        masks = masks_of(records)
        assert len(records) <= 4
        assert masks.sum(0).max() == 1
        assert masks.mean((1, 2)).min() >= 0.06
        assert [r.id for r in records] == [str(i) for i in range(len(records))]


def test_small_regions_are_left_out():
    for seed in range(10):
        _, records = made(Recipe(regions=99, min_area=0.1), seed)
        assert all(mask.mean() >= 0.1 for r in records for mask in masks_of([r]))


def test_no_region_is_large_enough():
    distorted, records = made(Recipe(min_area=0.99))
    assert records == []
    assert distorted.shape == REFERENCE.shape


def test_a_uniform_image_carries_one_distortion_everywhere():
    for seed in range(20):
        distorted, records = made(Recipe(mixed=0, clean=0, min_area=0), seed)
        assert len({r.distortions for r in records}) == 1
        assert len(np.unique(distorted - REFERENCE)) == 1


def test_a_mixed_image_carries_one_distortion_in_each_region():
    kinds = set()
    for seed in range(20):
        distorted, records = made(Recipe(mixed=1, clean=0, regions=99, min_area=0), seed)
        for record, mask in zip(records, masks_of(records), strict=True):
            (added,) = np.unique((distorted - REFERENCE)[mask])
            ((_, severity),) = record.distortions
            assert severity == Distortion.severity(int(added) - 1)
        kinds.add(len({r.distortions for r in records}) > 1)
    assert kinds == {True}


def test_shares_of_mixed_images_and_clean_regions():
    recipe = Recipe(mixed=0.7, clean=0.25, regions=99, min_area=0)
    mixed, clean, regions = 0, 0, 0
    for seed in range(300):
        _, records = made(recipe, seed)
        found = [r.distortions for r in records]
        mixed += len(set(found)) > 1
        if len(set(found)) > 1:
            clean += found.count(())
            regions += len(found)
    assert mixed / 300 == pytest.approx(0.7, abs=0.08)
    assert clean / regions == pytest.approx(0.25, abs=0.04)


def test_clean_regions_keep_their_pixels_and_score_one():
    seen = 0
    for seed in range(20):
        distorted, records = made(Recipe(mixed=1, clean=0.5, regions=99, min_area=0), seed, LocalSimilarity())
        for record, mask in zip(records, masks_of(records), strict=True):
            if (distorted == REFERENCE)[mask].all():
                seen += 1
                assert record.distortions == ()
                assert record.quality == pytest.approx(1, abs=1e-5)
                assert record.importance == pytest.approx(0, abs=2e-3)
    assert seen > 20


def test_a_distortion_that_cannot_be_seen_is_labelled_clean():
    recipe = Recipe(clean=0, visible=0.9, min_area=0)
    assert all(r.distortions == () for r in made(recipe, label=Fixed(quality=0.901))[1])
    assert all(r.distortions != () for r in made(recipe, label=Fixed(quality=0.9))[1])


@pytest.mark.parametrize(("impact", "importance"), [(0, 0), (0.0625, 0.5), (0.25, 1), (0.7, 1), (-1e-9, 0), (0.01, 0.2)])
def test_importance_is_the_square_root_of_the_drop_as_a_share_of_full_impact(impact, importance):
    for record in made(Recipe(full_impact=0.25, min_area=0), label=Fixed(impact=impact))[1]:
        assert record.importance == pytest.approx(importance)


@pytest.mark.parametrize(("score", "quality"), [(1 + 1e-7, 1), (-1e-7, 0), (0.3, 0.3)])
def test_quality_is_the_score_within_its_range(score, quality):
    assert all(r.quality == pytest.approx(quality, abs=1e-12) for r in made(Recipe(min_area=0), label=Fixed(quality=score))[1])


@pytest.mark.parametrize("name", DISTORTIONS.names())
def test_labels_are_in_range_for_every_distortion(photograph, name):
    reference = photograph[:SIDE, :SIDE]
    for seed in range(6):
        rng = np.random.default_rng(seed)
        distorted, records = synthesize(
            reference, squares, {name: DISTORTIONS.build({"plugin": name})}, LocalSimilarity(), Recipe(min_area=0), rng
        )
        assert distorted.dtype == np.uint8
        for r in records:
            assert 0 <= r.quality <= 1
            assert 0 <= r.importance <= 1
            assert r.quality_std is None
            assert r.distortions == () or r.distortions[0][0] == name


def test_the_generator_is_all_that_is_drawn_from():
    a, b, c = (made(Recipe(min_area=0), seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(a[0], b[0])
    assert a[1] == b[1] != c[1]


def test_the_reference_is_left_as_it_was():
    reference = REFERENCE.copy()
    reference.setflags(write=False)
    synthesize(reference, squares, {"blur": Paint()}, Fixed(), Recipe(), np.random.default_rng(0))


def test_every_setting_is_drawn():
    seen = set()
    for seed in range(200):
        distorted, _ = made(Recipe(mixed=1, clean=0), seed)
        seen |= set(np.unique(distorted - REFERENCE).tolist())
    assert seen == set(range(1, SETTINGS + 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mixed": 1.5}, r"mixed is a share in \[0, 1\], got 1.5"),
        ({"clean": 1.0}, r"clean is a share in \[0, 1\), got 1.0"),
        ({"regions": 0}, "regions is at least 1, got 0"),
        ({"min_area": 1.0}, r"min_area is a fraction of the image in \[0, 1\), got 1.0"),
        ({"visible": -0.1}, r"visible is a quality in \[0, 1\], got -0.1"),
        ({"full_impact": 0.0}, r"full_impact is a drop of the score in \(0, 1\], got 0.0"),
    ],
)
def test_a_recipe_out_of_range_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Recipe(**options)
