from __future__ import annotations

import hashlib
import json
import shutil

import numpy as np
import pytest

from components.registry import ConfigError
from datamodules.datasets.roi_folder import RoiFolder
from datamodules.records import SPLITS, Scale, encode_png
from datamodules.tables import read_records


@pytest.fixture
def folder(tmp_path):
    """Twelve images of six scenes."""
    for n in range(12):
        pixels = np.random.default_rng(n).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        (tmp_path / f"scene{n // 2}.{n % 2}.png").write_bytes(encode_png(pixels))
    return tmp_path


def write(folder, rows, columns="image,id,box,quality"):
    (folder / "labels.csv").write_text("\n".join([columns, *rows]) + "\n")


def rows(extra=""):
    return [f"scene{n // 2}.{n % 2}.png,{r},{3 * r} 2 9 9,{1 + n % 5}{extra}" for n in range(12) for r in range(2)]


def made(folder, **options):
    dataset = RoiFolder(root=str(folder), quality_scale=(1, 5), cache=str(folder / "cache"), **options)
    dataset.prepare()
    return dataset


def records(dataset, split):
    samples = dataset.split(split)
    return [samples[i].record for i in range(len(samples))]


def test_images_regions_and_scores(folder):
    write(folder, rows())
    dataset = made(folder)
    found = {r.id: r for s in SPLITS for r in records(dataset, s)}
    assert len(found) == 12
    one = found["scene1.1.png"]
    assert (one.source, one.height, one.width) == ("scene1", 20, 30)
    assert [r.id for r in one.regions] == ["scene1.1.png/0", "scene1.1.png/1"]
    assert (one.regions[1].quality, one.regions[1].quality_scale, one.measured().regions[1].box) == (0.75, Scale(1, 5), (3, 2, 9, 9))


def test_how_many_distortions_a_label_names(folder):
    """A budget of tokens counts on so many, and no more."""
    named = ["clean", "severe blur; minor noise", "minor blur"]
    write(folder, [f"{line},{named[n % 3]}" for n, line in enumerate(rows())], "image,id,box,quality,distortion")
    assert made(folder).most_types == 2


def test_scenes_are_dealt_whole_by_the_seed(folder):
    write(folder, rows())

    def dealt(seed):
        dataset = made(folder, seed=seed)
        return {s: {r.source for r in records(dataset, s)} for s in SPLITS}

    assert {s: len(found) for s, found in dealt(0).items()} == {"train": 4, "val": 1, "test": 1}
    assert set().union(*dealt(0).values()) == {f"scene{n}" for n in range(6)}
    assert dealt(0) == dealt(0)
    assert any(dealt(0) != dealt(seed) for seed in (1, 2))


def test_splits_and_groups_of_the_list(folder):
    listed = [
        f"scene{n // 2}.{n % 2}.png,0,1 2 9 9,3,{'train' if n < 8 else 'val' if n < 10 else 'test'},{'a' if n < 8 else n}"
        for n in range(12)
    ]
    write(folder, listed, "image,id,box,quality,split,group")
    dataset = made(folder)
    assert [len(records(dataset, s)) for s in SPLITS] == [8, 2, 2]
    assert {r.source for r in records(dataset, "train")} == {"a"}
    torn = [line.replace("train", "test") if line.startswith("scene0.0") else line for line in listed]
    write(folder, torn, "image,id,box,quality,split,group")
    with pytest.raises(ConfigError, match="line 3: the group 'a' is in test and in train: what is tested would have been trained on"):
        made(folder)
    write(folder, [*listed[:-1], "scene5.1.png,0,1 2 9 9,3,,11"], "image,id,box,quality,split,group")
    with pytest.raises(ConfigError, match=r"line 13: split is train, val, test in every row, or in none; got ''"):
        made(folder)
    write(folder, [*listed, "scene0.0.png,9,1 2 9 9,3,train,other"], "image,id,box,quality,split,group")
    with pytest.raises(ConfigError, match=r"line 14: image scene0\.0\.png is in the groups a and other: it has one"):
        made(folder)


def test_a_list_that_changed_is_read_again(folder):
    write(folder, rows())
    before = made(folder).describe()
    write(folder, rows()[:-2])
    after = made(folder).describe()
    assert before["fingerprint"] != after["fingerprint"]
    assert sum(after["images"].values()) == 11


def test_an_image_that_is_missing_is_left_out_or_refused_each_time(folder):
    write(folder, [*rows(), "nowhere.png,0,1 1 2 2,3"])
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"1 images of labels\.csv are left out: image .*nowhere\.png does not exist"):
            made(folder)
        with pytest.raises(ConfigError, match=r"1 images of labels\.csv cannot be used: image .*nowhere\.png"):
            made(folder, strict=True)


def test_an_image_that_was_fetched_or_changed_is_read(folder):
    write(folder, [*rows(), "late.png,0,1 1 2 2,3"])
    with pytest.warns(UserWarning, match=r"late\.png does not exist"):
        before = made(folder).describe()
    shutil.copy(folder / "scene0.0.png", folder / "late.png")
    after = made(folder).describe()
    assert sum(after["images"].values()) == sum(before["images"].values()) + 1


def test_rows_that_cannot_be_used_are_an_error(folder):
    wrong = [r.replace("2 9 9", "2 9 9 9") if r.startswith("scene0.0") else r for r in rows()]
    write(folder, [*wrong, "scene3.0.png,7,1 1 2 2,9", "nowhere.png,0,1 1 2 2,3"])
    told = r"3 mistakes: line 2: a box is .*line 3: a box is .*line 26: quality 9 lies outside its scale"
    with pytest.raises(ConfigError, match=rf"{told}.* Besides, 1 images cannot be used: image .*nowhere\.png does not exist"):
        made(folder)
    assert not (folder / "cache").exists()


@pytest.mark.parametrize("image", ["/etc/a.png", "../a.png"])
def test_an_image_outside_the_folder_is_a_mistake(folder, image):
    write(folder, [*rows(), f"{image},0,1 1 2 2,3"])
    with pytest.raises(ConfigError, match=rf"line 26: image '{image}' leads out of the folder: write it relative to"):
        made(folder)


def test_boxes_that_reach_out_are_told_each_time(folder):
    write(folder, [*rows(), "scene0.0.png,7,20 15 20 20,3"])
    for _ in range(2):
        with pytest.warns(
            UserWarning,
            match=r"1 boxes or polygons of labels\.csv reach out of their images, and are cut to them \(line 26: box 20 15 20 20 .*\)",
        ):
            dataset = made(folder)
    (region,) = [r for s in SPLITS for i in records(dataset, s) for r in i.measured().regions if r.id == "scene0.0.png/7"]
    assert region.box == (20, 15, 10, 5)


def test_too_few_groups_to_deal(folder):
    write(folder, rows()[:8])
    with pytest.raises(ConfigError, match=r"labels\.csv: 1 mistakes: 2 groups of images: without a column split, three at least are dealt"):
        made(folder)


@pytest.mark.parametrize("split", [",train", ""])
def test_all_images_of_a_list_can_be_of_the_test(folder, split):
    """Whatever the list names, and be they of one group, as none is dealt; and the description tells such data from the others."""
    write(folder, [f"scene0.{n}.png,0,2 2 9 9,3{split}" for n in range(2)], f"image,id,box,quality{',split' if split else ''}")
    dataset = made(folder, only_test=True)
    assert [len(records(dataset, s)) for s in SPLITS] == [0, 0, 2]
    assert dataset.describe()["shares"] == {"val": 0.0, "test": 1.0}
    assert bool(RoiFolder(root=str(folder)).only_tested()) == (not split)


def test_each_image_has_the_hash_of_its_file(folder):
    write(folder, rows())
    found = {r.id: r.hash for r in read_records([made(folder)._part])}
    assert found == {f"scene{n // 2}.{n % 2}.png": sha256(folder / f"scene{n // 2}.{n % 2}.png") for n in range(12)}


def sha256(path):
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def test_what_is_excluded_by_name_is_not_looked_at_and_moves_no_other_image(folder):
    """Its rows may be wrong; the others keep the splits that they were dealt."""
    write(folder, rows())
    before = {r.id: s for s in SPLITS for r in records(made(folder), s)}
    wrong = [r.replace("2 9 9", "2 9") if r.startswith("scene0.0.png,1") else r for r in rows()]
    write(folder, [*wrong, ",7,1 1 2 2,3"])
    with pytest.raises(ConfigError, match=r"2 mistakes: line 3: a box.*line 26: a row has an image"):
        made(folder)
    (folder / "problems.json").write_text(json.dumps({"unusable": ["", "scene0.0.png", "of another list"]}))
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"2 images of labels\.csv are left out, being named in .*problems\.json"):
            dataset = made(folder, exclude=str(folder / "problems.json"))
    after = {r.id: s for s in SPLITS for r in records(dataset, s)}
    assert after == {image: split for image, split in before.items() if image != "scene0.0.png"}


def test_another_exclusion_is_another_table(folder):
    write(folder, rows())
    whole = made(folder)
    (folder / "problems.json").write_text('{"unusable": ["scene0.0.png"]}')
    with pytest.warns(UserWarning, match="1 images of labels"):
        part = made(folder, exclude=str(folder / "problems.json"))
    assert sum(part.describe()["images"].values()) == 11
    assert sum(whole.describe()["images"].values()) == 12
    with pytest.raises(ConfigError, match=r"exclude: .*nothing\.json is no file with a list `unusable`"):
        made(folder, exclude=str(folder / "nothing.json"))


def test_a_list_of_nothing_that_can_be_used(folder):
    write(folder, [f"nowhere{n}.png,0,1 1 2 2,3" for n in range(3)])
    with pytest.raises(
        ConfigError, match=r"labels\.csv: no image can be used: 3 images cannot be used: image .*nowhere0\.png does not exist"
    ):
        made(folder)


def test_a_name_that_is_all_ending_is_its_own_group(folder):
    for name in (".a.png", "b/.a.png", "c.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(folder / "scene0.0.png", folder / name)
    write(folder, [f"{name},0,1 1 2 2,3" for name in (".a.png", "b/.a.png", "c.png")])
    dataset = made(folder)
    assert {r.source for s in SPLITS for r in records(dataset, s)} == {".a.png", "b/.a.png", "c"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quality_scale": (5, 1)}, "quality_scale: a scale goes from a lower to a higher"),
        ({"importance_scale": (1,)}, r"importance_scale is the lowest and the highest score, got \[1\]"),
        ({"val": 0.5, "test": 0.5}, "val and test are shares whose sum is below 1, got 0.5 and 0.5"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ConfigError, match=message):
        RoiFolder(root="x", **options)
