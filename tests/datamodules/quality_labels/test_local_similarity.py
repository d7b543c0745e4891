from __future__ import annotations

import numpy as np
import pytest

from datamodules.distortions.base import DISTORTIONS, to_rgb, to_ycc
from datamodules.quality_labels.base import QualityLabel
from datamodules.quality_labels.local_similarity import LocalSimilarity

C, A, N, WINDOW = 3.0, 80.0, 40.0, 7
LOST, ADDED = 150.0, 24.0  # tolerances of colour
POWER, FADING, HARDENING = 3.0, 0.3, 1.5  # powers of structure, of contrast lost and gained


def one_pixel(height: int, width: int, y: int, x: int) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[y, x] = True
    return mask


def flat(*colour: int, size: int = 24) -> np.ndarray:
    return np.full((size, size, 3), colour, np.uint8)


def calm(photograph: np.ndarray) -> np.ndarray:
    """Nothing darker than 90 or lighter than 160: it can be shifted without clipping."""
    return (90 + photograph.astype(float) * 70 / 255).astype(np.uint8)


@pytest.mark.parametrize("shift", [-60, -20, 1, 40, 80])
def test_a_shift_of_luma_moves_the_luminance_alone(photograph, shift):
    reference = calm(photograph)
    distorted = (reference.astype(int) + shift).astype(np.uint8)
    expected = 1 / (1 + (shift / A) ** 2)
    assert LocalSimilarity().image(distorted, reference) == pytest.approx(expected, abs=1e-4)
    mask = np.zeros(reference.shape[:2], bool)
    mask[:30, 50:] = True
    assert LocalSimilarity().region(distorted, reference, mask) == pytest.approx(expected, abs=1e-4)


def test_a_shift_by_the_tolerance_halves_the_score():
    label = LocalSimilarity(luminance_tolerance=20)
    assert label.image(flat(120, 120, 120), flat(100, 100, 100)) == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize(
    ("ours", "theirs"), [((200, 60, 60), (60, 60, 200)), ((90, 128, 90), (128, 128, 128)), ((0, 0, 0), (255, 255, 255))]
)
def test_flat_colours_have_a_closed_form(ours, theirs):
    y, cb, cr = (to_ycc(flat(*ours)) - to_ycc(flat(*theirs)))[0, 0]
    before, after = (np.hypot(*to_ycc(flat(*colour))[0, 0, 1:]) for colour in (theirs, ours))
    greyer = max(0.0, before - after) ** 2
    expected = 1 / (1 + (y / A) ** 2) / (1 + greyer / LOST**2 + max(0.0, cb**2 + cr**2 - greyer) / ADDED**2)
    assert LocalSimilarity().image(flat(*ours), flat(*theirs)) == pytest.approx(expected, abs=1e-4)


def test_a_negative_image_has_no_structure_in_common(photograph):
    mask = np.zeros(photograph.shape[:2], bool)
    mask[30:60, 30:60] = True
    assert LocalSimilarity(scales=1).region(255 - photograph, photograph, mask) < 0.2


def blurred_at(plane: np.ndarray, y: int, x: int) -> float:
    """The mean of the window around a pixel; the border repeats in reflection: ... 1 0 | 0 1 2 ... n-1 | n-1 n-2 ..."""
    height, width = plane.shape
    total = 0.0
    for i in range(y - WINDOW // 2, y + WINDOW // 2 + 1):
        for j in range(x - WINDOW // 2, x + WINDOW // 2 + 1):
            total += plane[_reflected(i, height), _reflected(j, width)]
    return total / WINDOW**2


def _reflected(i: int, n: int) -> int:
    i %= 2 * n
    return i if i < n else 2 * n - 1 - i


def slow_similarity(ours: np.ndarray, theirs: np.ndarray, y: int, x: int) -> tuple[float, float]:
    """Similarity and weight of one pixel by the formulas of the module's docstring, from planes (3, h, w)."""
    (mean, var), (other_mean, other_var) = moments_at(ours, y, x), moments_at(theirs, y, x)
    cov = blurred_at(ours[0] * theirs[0], y, x) - mean[0] * other_mean[0]
    both = 2 * (var[0] * other_var[0]) ** 0.5 + C
    structure = max(0.0, (2 * cov + C) / both) ** POWER
    contrast = (both / (var[0] + other_var[0] + C)) ** (FADING if var[0] < other_var[0] else HARDENING)
    luminance = 1 / (1 + (mean[0] - other_mean[0]) ** 2 / A**2)
    greyer = max(0.0, np.hypot(*other_mean[1:]) - np.hypot(*mean[1:])) ** 2
    apart = sum((mean[k] - other_mean[k]) ** 2 for k in (1, 2))
    spread = [var[k] ** 0.5 - other_var[k] ** 0.5 for k in (1, 2)]
    lost = greyer + sum(min(s, 0.0) ** 2 for s in spread)
    added = max(0.0, apart - greyer) + sum(max(s, 0.0) ** 2 for s in spread)
    similarity = structure * contrast * luminance / (1 + lost / LOST**2 + added / ADDED**2)
    return similarity, 0.2 + np.log2(1 + max(var[0], other_var[0]) / N)


def moments_at(planes: np.ndarray, y: int, x: int) -> tuple[list[float], list[float]]:
    mean = [blurred_at(p, y, x) for p in planes]
    return mean, [max(0, blurred_at(p * p, y, x) - m * m) for p, m in zip(planes, mean, strict=True)]


def halved(planes: np.ndarray) -> np.ndarray:
    h, w = planes.shape[1] // 2, planes.shape[2] // 2
    return np.array([[[p[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean() for j in range(w)] for i in range(h)] for p in planes])


@pytest.mark.parametrize("name", ["blur", "colorfulness", "noise", "exposure"])
def test_pixels_agree_with_a_loop_over_the_docstrings_formulas(photograph, name):
    reference = photograph[20:53, 30:59]  # odd sizes: 33 x 29
    distorted = DISTORTIONS.build({"plugin": name})(reference, 13)
    planes = [np.moveaxis(to_ycc(i).astype(float), 2, 0) for i in (distorted, reference)]
    pyramid = [planes, [halved(p) for p in planes], [halved(halved(p)) for p in planes]]
    for y, x in ((16, 14), (0, 0), (32, 28), (31, 3), (7, 27)):
        total = 0.0
        for scale, (ours, theirs) in enumerate(pyramid):
            total += slow_similarity(ours, theirs, min(y >> scale, ours.shape[1] - 1), min(x >> scale, ours.shape[2] - 1))[0] / 3
        mask = one_pixel(33, 29, y, x)
        assert LocalSimilarity().region(distorted, reference, mask) == pytest.approx(total, abs=1e-3)  # float32 moments, to the third power


def test_regions_are_pooled_with_the_information_weights(photograph):
    reference = photograph[40:49, 40:47]
    distorted = DISTORTIONS.build({"plugin": "noise"})(reference, 12)
    ours, theirs = (np.moveaxis(to_ycc(i).astype(float), 2, 0) for i in (distorted, reference))
    found = np.array([[slow_similarity(ours, theirs, y, x) for x in range(7)] for y in range(9)])
    label = LocalSimilarity(scales=1)
    assert label.image(distorted, reference) == pytest.approx(np.average(found[..., 0], weights=found[..., 1]), abs=1e-4)
    mask = np.random.default_rng(0).random((9, 7)) < 0.3
    expected = np.average(found[mask][:, 0], weights=found[mask][:, 1])
    assert label.region(distorted, reference, mask) == pytest.approx(expected, abs=1e-4)


def test_textured_parts_weigh_more_than_flat_ones():
    reference = flat(120, 120, 120, size=256)
    reference[:, 128:] = np.random.default_rng(0).integers(60, 190, (256, 128, 1), dtype=np.uint8)
    dimmed = np.stack([reference, reference])
    dimmed[0, :, :118] -= 60
    dimmed[1, :, 138:] -= 60
    lost = [1 - LocalSimilarity(scales=1).image(d, reference) for d in dimmed]
    assert lost[1] > 3 * lost[0]


def test_more_scales_than_a_small_image_has(photograph):
    small = photograph[:3, :2]
    assert LocalSimilarity(scales=6).image(small, small) == pytest.approx(1, abs=1e-5)
    assert 0 <= LocalSimilarity(scales=6).image(255 - small, small) < 1


@pytest.mark.parametrize(("name", "mean"), [("blur", 0.600), ("compression", 0.685), ("noise", 0.663)])
def test_the_shipped_encoder_learnt_from_these_scores(photograph, name, mean):
    distortion = DISTORTIONS.build({"plugin": name})
    scores = [LocalSimilarity().image(distortion(photograph, s), photograph) for s in range(8, 12)]
    assert np.mean(scores) == pytest.approx(mean, abs=0.01)


@pytest.mark.parametrize("way", ["label", "against"])
def test_a_region_costs_its_surroundings_and_not_the_image(photograph, monkeypatch, way):
    """How many pixels are compared is told by the regions alone: in an image of four times the size it is as many. The definition, which
    compares the whole image for each region and for its impact, takes four times as many, and gives the same to 1e-6."""
    compared, similar = [], LocalSimilarity.similar
    monkeypatch.setattr(LocalSimilarity, "similar", lambda self, mean, *more: compared.append(mean[0].size) or similar(self, mean, *more))
    label, blur, cost = LocalSimilarity(), DISTORTIONS.build({"plugin": "blur"}), {}
    for times in (2, 4):
        reference = np.tile(photograph, (times, times, 1))
        distorted, masks = blur(reference, 9), np.zeros((12, *reference.shape[:2]), bool)
        for r, mask in enumerate(masks):
            mask[60 + 4 * r : 72 + 4 * r, 64:80] = True
        compare = label.against(reference, masks) if way == "against" else lambda image, y=reference, m=masks: label.label(image, y, m)
        found = {}
        for name, judge in (("near", compare), ("whole", lambda image, y=reference, m=masks: QualityLabel.label(label, image, y, m))):
            compared.clear()
            found[name] = judge(distorted)
            cost[name, times] = sum(compared)
        np.testing.assert_allclose(found["near"], found["whole"], atol=1e-6)
    assert cost["near", 4] == cost["near", 2]
    assert cost["whole", 4] == 4 * cost["whole", 2] == 4 * 2 * 12 * (192**2 + 96**2 + 48**2)
    boxes = 12 * sum((12 // 2**k + 2 * WINDOW) * (16 // 2**k + 2 * WINDOW) for k in range(3))  # with a window on each side
    assert cost["near", 2] <= boxes if way == "against" else cost["near", 2] < cost["whole", 2] / 4


@pytest.mark.parametrize("options", [{"window": 6}, {"window": 1}, {"scales": 0}])
def test_bad_windows_and_scales_are_refused(options):
    with pytest.raises(ValueError, match="window is odd and at least 3, scales at least 1"):
        LocalSimilarity(**options)


@pytest.mark.parametrize("name", ["structure_floor", "luminance_tolerance", "colour_lost", "colour_added", "information_noise"])
def test_tolerances_are_positive(name):
    with pytest.raises(ValueError, match=f"{name} is above 0, got 0"):
        LocalSimilarity(**{name: 0.0})


@pytest.mark.parametrize("name", ["structure_power", "contrast_lost", "contrast_gained"])
def test_powers_may_be_zero_but_not_below(name):
    LocalSimilarity(**{name: 0.0})
    with pytest.raises(ValueError, match=f"{name} is at least 0, got -1"):
        LocalSimilarity(**{name: -1.0})


def test_what_is_added_counts_more_than_what_is_missing(photograph):
    """Colour and contrast, by the same factor up and down."""
    reference = calm(photograph)
    ycc = to_ycc(reference)
    middle = ycc[..., :1].mean()
    for faded, vivid in (
        (to_rgb(ycc * np.float32([1, 0.5, 0.5])), to_rgb(ycc * np.float32([1, 2, 2]))),
        (
            to_rgb((ycc - middle * np.float32([1, 0, 0])) * np.float32([0.5, 1, 1]) + middle * np.float32([1, 0, 0])),
            to_rgb((ycc - middle * np.float32([1, 0, 0])) * np.float32([2, 1, 1]) + middle * np.float32([1, 0, 0])),
        ),
    ):
        assert LocalSimilarity().image(faded, reference) > LocalSimilarity().image(vivid, reference)
