"""What every distortion promises; plugins are found on disk, so that a new one is tested without an edit here."""

from __future__ import annotations

import numpy as np
import pytest

from components.prompts import DISTORTION_TYPES, SEVERITIES
from datamodules.distortions.base import (
    DISTORTIONS,
    GRADES,
    SETTINGS,
    STAGES,
    VARIANTS,
    Distortion,
    from_linear,
    to_linear,
    to_rgb,
    to_uint8,
    to_ycc,
)
from datamodules.quality_labels.local_similarity import LocalSimilarity

LEVELS = np.arange(256, dtype=np.uint8)


def noise(*size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.fixture(params=DISTORTIONS.names())
def distortion(request):
    return DISTORTIONS.build({"plugin": request.param, **DISTORTIONS.get(request.param).tiny()})


def test_the_plugins_are_the_types_that_can_be_answered():
    assert set(DISTORTIONS.names()) >= set(DISTORTION_TYPES)


def test_twenty_settings_of_which_each_grade_is_stronger_than_the_one_before(distortion):
    assert SETTINGS == GRADES * VARIANTS == 20
    assert len(set(distortion.variants)) == VARIANTS == len(distortion.strengths)
    assert set(distortion.seeded) <= set(distortion.variants)
    for strengths in distortion.strengths:
        steps = np.diff(strengths)
        assert len(strengths) == GRADES
        assert (steps > 0).all() or (steps < 0).all()


def test_every_setting_keeps_shape_and_type_and_changes_the_image(distortion, photograph):
    for setting in range(SETTINGS):
        out = distortion(photograph, setting)  # read-only: what writes into its input fails here
        assert out.shape == photograph.shape
        assert out.dtype == np.uint8
        assert out.flags.writeable
        assert not np.array_equal(out, photograph)
        assert not np.shares_memory(out, photograph)


def test_only_the_seeded_variants_depend_on_the_seed(distortion, photograph):
    for setting in range(SETTINGS):
        out = distortion(photograph, setting, seed=5)
        np.testing.assert_array_equal(distortion(photograph, setting, seed=5), out)
        same = np.array_equal(distortion(photograph, setting, seed=6), out)
        assert same == (distortion.variants[setting % VARIANTS] not in distortion.seeded)


FORGIVEN = ("faded", "bleached")  # the label counts missing colour mildly


def test_quality_never_rises_with_the_grade(distortion, photograph):
    label = LocalSimilarity()
    scores = np.array([label.image(distortion(photograph, s), photograph) for s in range(SETTINGS)]).reshape(GRADES, VARIANTS)
    assert (np.diff(scores, axis=0) <= 0).all()
    for variant, gap in zip(distortion.variants, scores[0] - scores[-1], strict=True):
        assert gap > (0.01 if variant in FORGIVEN else 0.1), variant


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 2), (3, 200), (200, 3), (17, 5)])
def test_small_and_narrow_images(distortion, size):
    image = noise(*size)
    for setting in range(SETTINGS):
        out = distortion(image, setting, seed=1)
        assert out.shape == image.shape
        assert out.dtype == np.uint8


def test_the_memory_layout_does_not_matter(distortion, photograph):
    sideways = np.asfortranarray(photograph)
    for setting in range(SETTINGS):
        np.testing.assert_array_equal(distortion(sideways, setting, seed=2), distortion(photograph, setting, seed=2))


@pytest.mark.parametrize("setting", [-1, SETTINGS])
def test_a_setting_out_of_range_is_refused(distortion, setting):
    with pytest.raises(ValueError, match=f"setting {setting} of a distortion: allowed are 0 to 19"):
        distortion(noise(4, 4), setting)
    with pytest.raises(ValueError, match=f"setting {setting} of a distortion: allowed are 0 to 19"):
        distortion.severity(setting)


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8)])
def test_what_is_no_image_is_refused(distortion, image):
    with pytest.raises(ValueError, match=r"an image is \(height, width, 3\) uint8 RGB"):
        distortion(image, 0)


def test_the_severity_word_is_the_grade(distortion):
    assert [distortion.severity(s) for s in range(SETTINGS)] == [word for word in SEVERITIES for _ in range(VARIANTS)]


def test_luma_and_colour_differences():
    np.testing.assert_allclose(to_ycc(np.full((1, 1, 3), 77, np.uint8))[0, 0], [77, 0, 0], atol=1e-4)
    red = np.array([[[255, 0, 0]]], np.uint8)
    np.testing.assert_allclose(to_ycc(red)[0, 0], [0.299 * 255, -0.168736 * 255, 127.5], rtol=1e-5)


def test_to_rgb_is_the_inverse_of_to_ycc():
    image = noise(32, 32)
    np.testing.assert_array_equal(to_rgb(to_ycc(image)), image)


def test_linear_light():
    np.testing.assert_array_equal(from_linear(to_linear(LEVELS)), LEVELS)
    assert to_linear(LEVELS)[[0, 255]].tolist() == [0, 1]
    np.testing.assert_allclose(to_linear(LEVELS)[118], 0.18, atol=0.003)  # a grey card
    np.testing.assert_allclose(to_linear(LEVELS)[:11], np.arange(11) / 255 / 12.92, rtol=1e-5)  # the straight foot of the curve


def test_to_uint8_rounds_and_clips():
    assert to_uint8(np.array([-3.0, 0.4, 0.6, 254.6, 300.0], np.float32)).tolist() == [0, 0, 1, 255, 255]


def test_colours_out_of_range_are_clipped():
    assert from_linear(np.array([-1.0, 2.0], np.float32)).tolist() == [0, 255]


def test_in_the_development_it_is_the_same_distortion(distortion, photograph):
    """About light that 8 bits hold exactly: within a level, whose rounding is what the development does without."""
    light = to_linear(photograph)
    light.setflags(write=False)
    assert distortion.stage in STAGES
    if not distortion.develops:
        with pytest.raises(ValueError, match="does not happen in the development: apply it to the developed image"):
            distortion.developed(light, 0)
        return
    for setting in range(SETTINGS):
        out = distortion.developed(light, setting, seed=3)
        assert out.dtype == np.uint8
        most = 2 if distortion.variants[setting % 4] == "resample" else 1  # whose small picture is rounded, too
        assert np.abs(out.astype(int) - distortion(photograph, setting, seed=3)).max() <= most
    with pytest.raises(ValueError, match="setting 20 of a distortion: allowed are 0 to 19"):
        distortion.developed(light, 20)


def test_a_distortion_that_says_it_develops_and_does_not(photograph):
    class Says(Distortion):
        variants, strengths, develops = ("a", "b", "c", "d"), ((1.0,) * 5,) * 4, True

        def apply(self, image, variant, strength, rng):
            return image

    with pytest.raises(NotImplementedError, match=r"Says\.develops is set, but it has no develop"):
        Says().developed(to_linear(photograph), 0)
