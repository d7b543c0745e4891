from __future__ import annotations

import numpy as np
import PIL.Image
import pytest

from datamodules.distortions.base import from_linear
from datamodules.images import ImageError, load_image
from datamodules.procedural import dead_leaves
from datamodules.raw import develop, reduced
from datamodules.references import ChangedError, find_files, find_references, read_reference
from tests.datamodules.raw_files import write_dng


def save(folder, name: str, seed: int, height: int = 40, width: int = 60) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(dead_leaves(64, np.random.default_rng(seed))[:height, :width]).save(folder / name)


@pytest.fixture
def folder(tmp_path):
    for i in range(10):
        save(tmp_path, f"{'ab'[i % 2]}/IMG_{i:02d}.png", i)
    write_dng(tmp_path / "b" / "IMG_01.dng", np.full((48, 64, 3), 0.2))
    return tmp_path


def test_photographs_are_found_raw_files_among_them(folder):
    (folder / "notes.txt").touch()
    found = find_files(folder)
    assert list(found) == [
        *(f"a/IMG_{i:02d}.png" for i in range(0, 10, 2)),
        "b/IMG_01.dng",
        *(f"b/IMG_{i:02d}.png" for i in range(1, 10, 2)),
    ]
    assert found["a/IMG_00.png"] == (folder / "a" / "IMG_00.png").stat().st_size


def test_scenes_are_dealt_by_the_seed_and_a_raw_file_goes_with_its_picture(folder):
    references, left_out = find_references(folder, 0, 0.1, 0.2)
    assert left_out == []
    assert [r.number for r in references] == list(range(11))
    splits = {r.source: r.split for r in references}
    assert len(splits) == 10
    assert sorted(splits.values()) == ["test"] * 2 + ["train"] * 7 + ["val"]
    assert {r.split for r in references if r.source == "b/IMG_01"} == {splits["b/IMG_01"]}
    assert find_references(folder, 0, 0.1, 0.2)[0] == references
    assert find_references(folder, 1, 0.1, 0.2)[0] != references


def test_a_share_of_nothing_is_no_scene_and_a_small_one_is_one(folder):
    assert {r.split for r in find_references(folder, 0, 0, 0)[0]} == {"train"}
    assert [r.split for r in find_references(folder, 0, 0.001, 0)[0]].count("val") in (1, 2)


def test_too_few_scenes_for_the_splits(tmp_path):
    for name in ("a.left.png", "a.right.png", "b.png"):
        save(tmp_path, name, len(name))
    with pytest.raises(ImageError, match=r"holds 2 scene\(s\).* too few for train, test=0.2 and val=0.1"):
        find_references(tmp_path, 0, 0.1, 0.2)


def test_copies_are_left_out_and_said(folder):
    (folder / "c.png").write_bytes((folder / "a" / "IMG_02.png").read_bytes())
    references, left_out = find_references(folder, 0, 0.1, 0.2)
    assert len(references) == 11
    assert left_out == [{"name": "c.png", "images": 0, "why": "a copy of a/IMG_02.png"}]


def test_a_photograph_is_reduced_to_its_shorter_side_and_never_enlarged(folder):
    reference = find_references(folder, 0, 0.1, 0.2)[0][0]
    whole = load_image(folder / reference.name)
    np.testing.assert_array_equal(read_reference(folder, reference, 0).image, whole)
    np.testing.assert_array_equal(read_reference(folder, reference, 400).image, whole)
    small = read_reference(folder, reference, 20)
    assert small.image.shape == (20, 30, 3)
    assert small.light is None


def test_a_raw_file_is_developed_and_its_light_is_kept(folder):
    reference = next(r for r in find_references(folder, 0, 0.1, 0.2)[0] if r.name.endswith(".dng"))
    light = develop(folder / reference.name)
    for size, expected in ((0, light), (24, reduced(light, (24, 32)))):
        clean = read_reference(folder, reference, size)
        np.testing.assert_array_equal(clean.light, expected)
        np.testing.assert_array_equal(clean.image, from_linear(expected))


@pytest.mark.parametrize("raw", [False, True])
def test_a_photograph_of_too_few_pixels(tmp_path, raw):
    if raw:
        write_dng(tmp_path / "a.dng", np.full((12, 64, 3), 0.2))
    else:
        save(tmp_path, "a.png", 0, 12)
    (reference,) = find_references(tmp_path, 0, 0, 0)[0]
    with pytest.raises(ImageError, match=r"cannot be developed" if raw else "pixels, fewer than 16 on a side"):
        read_reference(tmp_path, reference, 0)


def test_a_photograph_that_changed(folder):
    reference = find_references(folder, 0, 0.1, 0.2)[0][0]
    save(folder, reference.name, 99)
    with pytest.raises(ChangedError, match=r"IMG_00\.png has changed or gone"):
        read_reference(folder, reference, 0)
    (folder / reference.name).unlink()
    with pytest.raises(ChangedError, match=r"IMG_00\.png has changed or gone"):
        read_reference(folder, reference, 0)
