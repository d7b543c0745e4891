"""RAW photographs, on DNG files whose light is known."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import rawpy

from datamodules import raw
from datamodules.distortions.base import DISTORTIONS, from_linear, to_linear, to_uint8
from datamodules.images import ImageError
from datamodules.synthesis import Chains
from tests.datamodules.raw_files import write_dng

Y, X = np.mgrid[:64, :96] / 96
LIGHT = np.stack([0.02 + 0.5 * X**2, 0.03 + 0.2 * Y, 0.3 - 0.25 * X], -1).astype(np.float32)
INSIDE = np.s_[4:-4, 4:-4]  # demosaicing repeats what it has at the border


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("raw") / "smooth.DNG"
    write_dng(path, LIGHT)
    return path


def test_what_is_raw_is_said_by_the_name():
    assert raw.is_raw("a/IMG_1.NEF")
    assert raw.is_raw("b.dng")
    assert not raw.is_raw("c.tiff")


def test_developing_gives_the_light_of_the_scene(file):
    light = raw.develop(file)
    assert light.dtype == np.float32
    np.testing.assert_allclose(light[INSIDE], LIGHT[INSIDE], atol=5e-4)


def test_a_camera_held_upright_gives_an_upright_picture(tmp_path):
    write_dng(tmp_path / "a.dng", LIGHT, orientation=6)
    np.testing.assert_allclose(raw.develop(tmp_path / "a.dng")[INSIDE], np.rot90(LIGHT, -1)[INSIDE], atol=5e-4)


@pytest.mark.parametrize(("setting", "stops"), [(0, 1.2), (16, 3.5), (1, -1.5), (17, -4.4)])
def test_exposure_is_the_brightness_of_the_development(file, setting, stops):
    """LibRaw's own brightness, with its sRGB curve and 8 bits, is within a level."""
    ours = DISTORTIONS.build({"plugin": "exposure"}).developed(raw.develop(file), setting)
    with rawpy.imread(str(file)) as opened:
        theirs = opened.postprocess(
            use_camera_wb=True, no_auto_bright=True, output_bps=8, gamma=(2.4, 12.92), adjust_maximum_thr=0, bright=2.0**stops
        )
    assert np.abs(ours[INSIDE].astype(int) - theirs[INSIDE]).max() <= 1


def test_brightened_in_the_development_shadows_keep_levels_that_8_bits_have_lost(file):
    light = raw.develop(file) / 30
    exposure = DISTORTIONS.build({"plugin": "exposure"})
    developed, afterwards = exposure.developed(light, 16), exposure(from_linear(light), 16)
    assert len(np.unique(developed)) > 2 * len(np.unique(afterwards))
    assert np.abs(developed.astype(int) - afterwards).max() <= 8


def test_reducing_keeps_light(file):
    light = raw.develop(file)
    small = raw.reduced(light, (32, 48))
    assert small.shape == (32, 48, 3)
    np.testing.assert_allclose(small.mean((0, 1)), light.mean((0, 1)), rtol=2e-3)
    np.testing.assert_allclose(raw.reduced(np.full((20, 30, 3), 0.25, np.float32), (7, 11)), 0.25, atol=1e-6)
    assert raw.reduced((light > 0.15).astype(np.float32), (9, 13)).max() <= 1


def test_of_several_distortions_all_before_the_file_happen_in_the_development():
    """Their values are rounded to 8 bits once, at its end: that is seen where one brightens what another has dimmed."""
    light = (LIGHT / 30).astype(np.float32)
    image = from_linear(light)
    distortions = {n: DISTORTIONS.build({"plugin": n}) for n in DISTORTIONS.names()}
    assert [n for n, d in distortions.items() if not d.develops] == ["compression"]
    chain = Chains(image, distortions, light, seed=0)
    for kind in set(distortions) - {"compression"}:
        np.testing.assert_array_equal(chain(((kind, 16),)), distortions[kind].developed(light, 16))
    flat = distortions["contrast"].coded(to_linear(distortions["exposure"].coded(light, 16)), 2)
    both = chain((("exposure", 16), ("contrast", 2)))
    np.testing.assert_array_equal(both, to_uint8(flat))
    np.testing.assert_array_equal(chain((("exposure", 16), ("contrast", 2), ("compression", 4))), distortions["compression"](both, 4))
    stepwise = distortions["contrast"](distortions["exposure"].developed(light, 16), 2)
    assert 0 < np.abs(both.astype(int) - stepwise).max() <= 1
    np.testing.assert_array_equal(chain(()), image)
    np.testing.assert_array_equal(Chains(image, distortions, None, seed=0)((("exposure", 16),)), distortions["exposure"](image, 16))


@pytest.mark.parametrize("content", [b"", b"II*\x00 no more", b"text"])
def test_a_damaged_file(tmp_path, content):
    (tmp_path / "a.nef").write_bytes(content)
    with pytest.raises(
        ImageError, match=r"a\.nef cannot be developed \(.+\): it is damaged, or of a camera that this LibRaw does not know"
    ):
        raw.develop(tmp_path / "a.nef")


def test_without_rawpy_the_remedy_is_named(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "rawpy", None)
    with pytest.raises(ImportError, match=r"RAW photographs need the package rawpy: pip install 'roi-iqa\[raw\]'"):
        raw.develop(file)


def test_what_is_recorded():
    said = raw.describe()
    assert said["rawpy"] == rawpy.__version__
    assert said["parameters"] == dict(raw.PARAMETERS)
