from __future__ import annotations

import numpy as np
import pytest

from datamodules.distortions.base import to_ycc
from datamodules.looks import relook


def looks(image: np.ndarray, count: int) -> list[np.ndarray]:
    return [relook(image, np.random.default_rng(seed)) for seed in range(count)]


def chroma(image: np.ndarray) -> np.ndarray:
    return np.hypot(*np.moveaxis(to_ycc(image)[..., 1:], 2, 0))


def test_size_and_type_are_kept_and_the_image_is_left_as_it_was(photograph):
    out = relook(photograph, np.random.default_rng(0))  # the fixture is read-only
    assert out.shape == photograph.shape
    assert out.dtype == np.uint8
    assert out.flags.c_contiguous
    assert out.flags.writeable


def test_the_generator_is_the_look(photograph):
    a, b, c = (relook(photograph, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


def test_every_quarter_turn_happens(photograph):
    luma = to_ycc(photograph)[..., 0]
    found = set()
    for look in looks(photograph, 24):
        match = [np.corrcoef(to_ycc(look)[..., 0].ravel(), np.rot90(luma, k).ravel())[0, 1] for k in range(4)]
        assert max(match) > 0.95  # tones change, their order hardly
        found.add(int(np.argmax(match)))
    assert found == {0, 1, 2, 3}


def test_looks_stay_within_what_photographs_are(photograph):
    luma = [to_ycc(look)[..., 0] for look in looks(photograph, 60)]
    assert np.mean([y.mean() for y in luma]) == pytest.approx(to_ycc(photograph)[..., 0].mean(), rel=0.1)
    assert min(y.std() for y in luma) > 0.4 * to_ycc(photograph)[..., 0].std()
    ratio = [chroma(look).mean() / chroma(photograph).mean() for look in looks(photograph, 60)]
    assert np.median(ratio) == pytest.approx(1, abs=0.15)
    assert 0.3 < min(ratio) < 0.9
    assert 1.1 < max(ratio) < 3


def test_some_hues_are_turned_far_and_most_are_not(photograph):
    hue = np.arctan2(*to_ycc(photograph)[..., :0:-1].mean((0, 1)))
    turned = [np.arctan2(*to_ycc(look)[..., :0:-1].mean((0, 1))) - hue for look in looks(photograph, 100)]
    far = np.abs(np.angle(np.exp(1j * np.array(turned)))) > 0.8
    assert 0.1 < far.mean() < 0.5
