from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import PIL.Image
import pytest
import torch

from components.registry import ConfigError, Part
from datamodules.datasets import photographs
from datamodules.datasets.base import DATASETS
from datamodules.datasets.photographs import EMBEDDED, PART, Photographs
from datamodules.images import ImageError
from datamodules.making import identity
from datamodules.procedural import dead_leaves
from datamodules.records import SPLITS, encode_png

SMALL = {"size": 32, "train": PART + 3, "val": 2, "test": 4, "regions": 3}


def small(**options) -> Photographs:
    return DATASETS.build({"plugin": "photographs", **SMALL, "cache": "", "workers": 0, **options})


def save(folder, name: str, seed: int, size: int = 40) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(dead_leaves(size, np.random.default_rng(seed))).save(folder / name)


@pytest.fixture
def folder(tmp_path):
    """Twelve photographs in two subfolders."""
    for i in range(12):
        save(tmp_path / "mine", f"{'ab'[i % 2]}/IMG_{i:02d}.png", i)
    return tmp_path / "mine"


def names(dataset: Photographs) -> dict[str, list[str]]:
    return {s: [p.name for p in dataset.photographs[s]] for s in SPLITS}


def files(cache) -> dict[str, bytes]:
    return {p.relative_to(cache).as_posix(): p.read_bytes() for p in sorted(cache.rglob("*")) if p.is_file()}


def test_the_embedded_photographs_are_as_listed():
    dataset = small()
    for split in SPLITS:
        assert names(dataset)[split] == sorted(n for n, (_, _, s) in EMBEDDED.items() if s == split)
        for photograph in dataset.photographs[split]:
            assert photograph.pixels.ndim == 3
            assert photograph.pixels.dtype == np.uint8


def test_scenes_stay_together_and_splits_share_none():
    scenes = {s: {p.source for p in small().photographs[s]} for s in SPLITS}
    assert not scenes["train"] & scenes["val"]
    assert not scenes["train"] & scenes["test"]
    assert not scenes["val"] & scenes["test"]
    assert [s for s in SPLITS for p in small().photographs[s] if p.source == "motorcycle"] == ["train", "train"]


def test_samples_come_from_their_splits_photographs():
    dataset = small(train=60, val=12, test=12)
    scenes = {s: {p.source for p in dataset.photographs[s]} for s in SPLITS}
    for split in SPLITS:
        sources = {dataset.make(split, i)[1].source for i in range(dataset.counts[split])}
        assert sources <= scenes[split] | ({"dead_leaves"} if split == "train" else set())
        assert sources >= (scenes[split] if split != "train" else {"dead_leaves"})


@pytest.mark.parametrize(("share", "expected"), [(0.0, set()), (1.0, {"dead_leaves"})])
def test_the_share_of_dead_leaves(share, expected):
    dataset = small(procedural=share)
    sources = {dataset.make("train", i)[1].source for i in range(6)}
    assert (sources == expected) if expected else ("dead_leaves" not in sources)


def test_training_on_dead_leaves_alone_reads_no_training_photograph(monkeypatch):
    dataset = small(procedural=1.0)
    monkeypatch.setitem(dataset.photographs, "train", [])
    assert dataset.make("train", 0)[1].source == "dead_leaves"


def test_on_the_fly_and_from_the_cache_a_sample_is_the_same(tmp_path):
    flying, cached = small(), small(cache=str(tmp_path))
    cached.prepare()
    for split in SPLITS:
        assert len(flying.split(split)) == len(cached.split(split)) == SMALL[split]
        for i in range(SMALL[split]):
            a, b = flying.split(split)[i], cached.split(split)[i]
            assert torch.equal(a.image, b.image)
            assert a.record == dataclasses.replace(b.record, png=b"")
            assert b.record.png == encode_png(a.image.permute(1, 2, 0).numpy())


def test_the_cache_does_not_depend_on_the_number_of_workers(tmp_path):
    for workers in (0, 2):
        small(cache=str(tmp_path / str(workers)), workers=workers).prepare()
    alone = files(tmp_path / "0")
    assert alone == files(tmp_path / "2")
    assert [n.partition("/")[2] for n in alone] == ["test-00000.parquet", "train-00000.parquet", "train-00001.parquet", "val-00000.parquet"]


def test_an_interrupted_cache_is_continued(tmp_path, monkeypatch):
    dataset = small(cache=str(tmp_path))
    make = dataset.make_pair

    def interrupted(split, index):
        if (split, index) == ("train", PART + 1):
            raise KeyboardInterrupt
        return make(split, index)

    monkeypatch.setattr(dataset, "make_pair", interrupted)
    with pytest.raises(KeyboardInterrupt):
        dataset.prepare()
    done = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.parquet")}
    assert [p.name for p in done] == ["train-00000.parquet"]
    assert list(files(tmp_path)) == [p.relative_to(tmp_path).as_posix() for p in done]  # no half file

    again = small(cache=str(tmp_path))
    made = []
    monkeypatch.setattr(again, "make_pair", lambda split, index: made.append((split, index)) or make(split, index))
    again.prepare()
    assert ("train", 0) not in made
    assert len(made) == len(set(made)) == 3 * PART  # whole parts, whatever the splits show of them
    assert all(p.stat().st_mtime_ns == t for p, t in done.items())
    assert [len(again.split(s)) for s in SPLITS] == [PART + 3, 2, 4]

    made.clear()
    again.prepare()
    assert made == []


def test_a_killed_process_leaves_no_part_that_is_half(tmp_path, root):
    cache = tmp_path / "cache"
    options = f"size=32, train=400, cache={str(cache)!r}, workers=0"
    code = f"from datamodules.datasets.photographs import Photographs; Photographs({options}).prepare()"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=root, stderr=subprocess.DEVNULL)
    while not list(cache.rglob("*.parquet")):
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    parts = [p for p in cache.rglob("*.parquet") if not p.name.startswith(".")]
    assert parts
    assert all(len(photographs.read_records([p])) == PART for p in parts)


def test_a_finished_cache_needs_no_mask_encoder(tmp_path, monkeypatch):
    small(cache=str(tmp_path)).prepare()
    again = small(cache=str(tmp_path))
    monkeypatch.setattr(again.mask_encoder, "load_pretrained", lambda: pytest.fail("read for nothing"))
    again.prepare()
    assert len(again.split("val")) == 2


@pytest.mark.parametrize("prepared", [True, False])
def test_on_the_fly_the_mask_encoder_is_loaded_once(monkeypatch, prepared):
    dataset, loads = small(), []
    monkeypatch.setattr(dataset.mask_encoder, "load_pretrained", lambda: loads.append(1))
    if prepared:
        dataset.prepare()
    for split in SPLITS:
        dataset.split(split)
    assert loads == [1]


def test_what_was_measured_is_read_without_a_photograph(tmp_path, monkeypatch):
    dataset = small(cache=str(tmp_path))
    described = json.loads(json.dumps(dataset.describe()))
    assert dataset.kept("test", described) is None  # not made yet, and not made for this
    assert not list(tmp_path.rglob("*.parquet"))
    dataset.prepare()
    monkeypatch.setattr(photographs, "_embedded", lambda: pytest.fail("the photographs are read"))
    kept = small(cache=str(tmp_path)).kept("test", described)
    assert [kept[i].record for i in range(len(kept))] == [dataset.split("test")[i].record for i in range(SMALL["test"])]
    assert small().kept("test", described) is None  # without a cache they would have to be made


def test_a_cache_that_is_not_filled_says_so(tmp_path):
    with pytest.raises(RuntimeError, match=r"2 of 2 parts of the train split are not in .*: call prepare\(\) first"):
        small(cache=str(tmp_path)).split("train")


@pytest.mark.parametrize(
    "options",
    [
        {"seed": 1},
        {"size": 48},
        {"procedural": 0.25},
        {"looks": False},
        {"distortions": ("blur", "noise")},
        {"mixed": 0.5},
        {"clean": 0.2},
        {"regions": 2},
        {"min_area": 0.02},
        {"visible": 0.9},
        {"full_impact": 0.3},
        {"mask_encoder": {"plugin": "superpixel", "segments": 10}},
        {"quality_label": {"plugin": "local_similarity", "scales": 2}},
    ],
    ids=lambda o: next(iter(o)),
)
def test_other_samples_have_another_fingerprint_and_folder(options, tmp_path):
    one, other = small(cache=str(tmp_path)), small(cache=str(tmp_path), **options)
    assert one.fingerprint != other.fingerprint
    assert one._part_path("val", 0).parent != other._part_path("val", 0).parent


@pytest.mark.parametrize(
    "options",
    [
        {"workers": 2},
        {"cache": "elsewhere"},
        {"train": 3},
        {"turns": 8},
        {"mask_encoder": {"plugin": "superpixel"}},
        {"distortions": ("noise", "exposure", "contrast", "compression", "colorfulness", "blur")},
    ],
)
def test_the_same_samples_have_the_same_fingerprint(options):
    assert small().fingerprint == small(**options).fingerprint


def test_the_fingerprint_knows_the_version_the_photographs_and_the_plugins_lists(monkeypatch, folder):
    before, mine = small().fingerprint, small(root=str(folder)).fingerprint
    save(folder, "a/IMG_00.png", 99)
    assert len({before, mine, small(root=str(folder)).fingerprint}) == 3
    monkeypatch.setattr(photographs, "VERSION", "other")
    assert small().fingerprint != before


def test_the_fingerprint_knows_every_option_and_the_contents_of_files(tmp_path):
    weights = tmp_path / "weights.bin"
    found = []
    for content in (b"a", b"b"):
        weights.write_bytes(content)
        found.append(identity(Part(Reads, path=str(weights), sizes=(1, 2))))
    assert found[0]["path (sha256)"] != found[1]["path (sha256)"]
    assert found[0]["sizes"] == (1, 2)
    assert found[0]["depth"] == 3


class Reads:
    def __init__(self, *, path: str, sizes: tuple[int, ...], depth: int = 3) -> None:
        raise AssertionError("an identity needs no instance")


def test_the_fingerprint_knows_the_strengths(monkeypatch):
    before, dataset = small().fingerprint, small()
    monkeypatch.setattr(type(dataset.distortions["blur"]), "strengths", ((1.0,) * 5,) * 4)
    assert dataset.fingerprint != before


def test_only_training_photographs_take_another_look():
    plain, varied = small(looks=False, procedural=0.0), small(procedural=0.0)
    for split in ("val", "test"):
        np.testing.assert_array_equal(plain.make(split, 0)[0], varied.make(split, 0)[0])
    assert not np.array_equal(plain.make("train", 0)[0], varied.make("train", 0)[0])


@pytest.mark.parametrize(
    ("several", "distortions", "most"), [(1, ("blur", "noise"), 1), (3, ("blur", "noise"), 2), (2, ("blur", "noise", "contrast"), 2)]
)
def test_the_most_types_of_a_region(several, distortions, most):
    """What a budget of tokens counts on: no label names more, and some name as many."""
    dataset = small(several=several, distortions=distortions, clean=0.0, visible=1.0)
    assert dataset.most_types == most
    assert max(len(r.distortions) for i in range(6) for r in dataset.make("train", i)[1].regions) == most


def test_the_seed_draws_other_samples():
    a, b = (small(seed=s).make("test", 0) for s in (0, 1))
    assert not np.array_equal(a[0], b[0])


def test_a_sample_does_not_depend_on_how_many_there_are():
    a, b = small(test=4).make("test", 2), small(test=40).make("test", 2)
    np.testing.assert_array_equal(a[0], b[0])
    assert a[1] == b[1]


def test_a_split_may_be_empty(tmp_path):
    dataset = small(test=0, cache=str(tmp_path))
    dataset.prepare()
    assert len(dataset.split("test")) == 0


def test_a_folder_of_ones_own(folder):
    dataset = small(root=str(folder))
    found = names(dataset)
    assert [len(found[s]) for s in SPLITS] == [8, 2, 2]
    assert sorted(n for ns in found.values() for n in ns) == sorted(f"{'ab'[i % 2]}/IMG_{i:02d}.png" for i in range(12))
    assert dataset.make("test", 0)[1].source in {n.removesuffix(".png") for n in found["test"]}
    assert names(small(root=str(folder))) == found
    assert names(small(root=str(folder), seed=1)) != found
    described = json.loads(json.dumps(dataset.describe()))
    assert described["root"] == str(folder)
    assert {s: sorted(p) for s, p in described["photographs"].items()} == found


def test_files_of_one_scene_stay_together(tmp_path):
    for i in range(4):
        for side in ("left", "right"):
            save(tmp_path, f"scene{i}.{side}.png", 2 * i + (side == "left"))
    save(tmp_path, "other/scene0.png", 20)
    dataset = small(root=str(tmp_path))
    where = {p.name: s for s in SPLITS for p in dataset.photographs[s]}
    assert all(where[f"scene{i}.left.png"] == where[f"scene{i}.right.png"] for i in range(4))
    assert len({p.source for s in SPLITS for p in dataset.photographs[s]}) == 5
    assert set(where.values()) == set(SPLITS)


def test_a_photograph_that_cannot_be_used_is_named_and_left_out(folder):
    (folder / "a" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut")
    save(folder, "b/thumb.png", 3, size=12)
    (folder / "b" / "twin.png").write_bytes((folder / "a" / "IMG_00.png").read_bytes())
    (folder / "notes.txt").write_text("no image, no business of ours")
    with pytest.warns(UserWarning, match="left out") as caught:
        found = names(small(root=str(folder)))
    (text,) = [str(w.message) for w in caught]
    assert text.startswith(f"3 of 15 images in {folder} are left out: ")
    assert "broken.jpg" in text
    assert "b/thumb.png has 12 x 12 pixels, fewer than 16 on a side" in text
    assert "b/twin.png is a copy of a/IMG_00.png" in text
    assert sum(map(len, found.values())) == 12


def test_good_folders_are_read_without_a_warning(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small(root=str(folder)).prepare()


def test_photographs_beyond_the_memory_kept_are_read_when_needed(folder, monkeypatch):
    kept = small(root=str(folder))
    expected = [kept.make("test", i) for i in range(4)]
    monkeypatch.setattr(photographs, "KEPT", 5 * 40 * 40 * 3)
    reading = small(root=str(folder))
    assert sum(p.pixels is not None for s in SPLITS for p in reading.photographs[s]) == 5
    assert reading.fingerprint == kept.fingerprint
    for i, (pixels, record) in enumerate(expected):
        np.testing.assert_array_equal(reading.make("test", i)[0], pixels)
        assert reading.make("test", i)[1] == record


def test_a_folder_that_is_not_there():
    with pytest.raises(ImageError, match="image folder /no/such/folder does not exist: check the path"):
        small(root="/no/such/folder").prepare()


def test_a_folder_without_images(tmp_path):
    with pytest.raises(ImageError, match="holds no images: files that end in"):
        small(root=str(tmp_path)).prepare()


def test_a_folder_of_too_few_scenes(tmp_path):
    for i in range(4):
        save(tmp_path, f"scene{i // 2}.{i % 2}.png", i)
    with pytest.raises(ConfigError, match=r"holds 4 usable photograph\(s\) of 2 scene\(s\).* at least 3 scenes are needed"):
        small(root=str(tmp_path)).prepare()
    tested = small(root=str(tmp_path), only_test=True)
    assert {s: len(tested.split(s)) for s in SPLITS} == {"train": 0, "val": 0, "test": 4}
    assert tested.split("test")[0].record.source in ("scene0", "scene1")
    (tmp_path / "third.png").write_bytes(b"broken")
    with pytest.warns(UserWarning, match=r"third\.png"), pytest.raises(ConfigError, match=r"1 of 5 images in .* are left out: .*third"):
        small(root=str(tmp_path)).prepare()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 8}, "size: at least 16 pixels; got 8"),
        ({"val": -1}, r"train, val and test: numbers of images, none below 0; got \(19, -1, 4\)"),
        ({"procedural": 1.5}, r"procedural: a share in \[0, 1\]; got 1.5"),
        ({"distortions": ()}, r"distortions: one type at least, each named once; got \(\)"),
        ({"distortions": ("blur", "blur")}, "each named once"),
        ({"distortions": ("blurr",)}, "no distortion plugin 'blurr'. Did you mean 'blur'"),
        ({"workers": -1}, "workers: a number of processes, 0 for none; got -1"),
        ({"only_test": True}, "only_test: of a folder .*: the embedded photographs have splits of their own; got True"),
        ({"mixed": 2.0}, r"mixed is a share in \[0, 1\], got 2.0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        small(**options)


@pytest.mark.parametrize("index", [-1, 4])
def test_there_is_no_such_sample(index):
    with pytest.raises(IndexError, match=f"sample {index} of 4"):
        small().split("test")[index]


@pytest.mark.parametrize("cached", [False, True])
def test_turns_show_each_training_sample_in_other_positions(tmp_path, cached):
    dataset = small(turns=8, train=3, cache=str(tmp_path) if cached else "")
    dataset.prepare()
    train = dataset.split("train")
    assert (len(train), len(dataset.split("val"))) == (24, len(small().split("val")))
    seen = set()
    for turn in range(8):
        upright, turned = train[1], train[1 + 3 * turn]
        assert turned.record == upright.record
        # what is in a region stays in it
        for a, b in zip(upright.masks(), turned.masks(), strict=True):
            assert torch.equal(upright.image[:, a].sort(-1).values, turned.image[:, b].sort(-1).values)
        seen.add(turned.image.numpy().tobytes())
    assert len(seen) == 8


def test_regions_that_are_never_large_enough(monkeypatch):
    monkeypatch.setattr(photographs, "TRIES", 2)
    with pytest.raises(RuntimeError, match=r"no region in 2 images covers min_area=0\.99 of its image: lower min_area"):
        small(min_area=0.99).make("val", 0)


GOLDEN = {  # hash of the masks, means of the channels, quality, importance; README's figures were made with these samples
    ("train", 7): (
        "836d1ab30f1c4d18",
        [78.3351, 128.6636, 115.8956],
        [0.459348, 0.967798, 0.291895, 0.935935, 0.945962, 0.201737],
        [0.441561, 0.125267, 0.693274, 0.123543, 0.085837, 0.599457],
    ),
    ("val", 1): (
        "460dff5d2ca51a07",
        [40.2168, 60.6624, 145.5728],
        [0.174223, 0.102249, 0.354172, 0.10829, 0.351524, 0.820765],
        [0.635567, 0.80187, 0.644567, 1.0, 0.296923, 0.148065],
    ),
    ("test", 0): (
        "601a6ce01a033b38",
        [164.24, 98.4921, 70.7469],
        [0.787981, 0.204152, 0.329093, 0.921998, 0.177005, 0.258042],
        [0.25051, 0.482011, 0.597249, 0.113639, 0.342632, 0.547026],
    ),
}


@pytest.mark.parametrize("place", GOLDEN, ids=str)
def test_quickstarts_samples_are_what_they_were(place):
    """The tolerances are those of another processor, whose powers and logarithms differ in their last bits."""
    masks, means, quality, importance = GOLDEN[place]
    pixels, record = Photographs(cache="").make(*place)
    assert hashlib.sha256(" ".join(r.counts for r in record.regions).encode()).hexdigest()[:16] == masks
    np.testing.assert_allclose(pixels.mean((0, 1)), means, atol=2e-3)
    np.testing.assert_allclose([r.quality for r in record.regions], quality, atol=1e-4)
    np.testing.assert_allclose([r.importance for r in record.regions], importance, atol=1e-3)


def test_the_first_test_sample_is_what_it_was():
    """Where this fails, samples have changed: raise `photographs.VERSION`, train what ships anew, and write the new numbers here."""
    pixels, record = Photographs(cache="").make("test", 0)
    assert (record.source, len(record.regions)) == ("coffee", 6)
    assert pixels.mean() == pytest.approx(111.16, abs=0.5)
    assert np.mean([r.quality for r in record.regions]) == pytest.approx(0.446, abs=0.02)


@pytest.mark.parametrize("cached", [False, True])
def test_pairs_bring_the_clean_image_along(tmp_path, cached):
    """A cache that others filled is completed and stays what it was for them; clean regions are equal in both images."""
    options = {"mixed": 0.0, "clean": 0.5, "several": 1, "turns": 8, "train": 4, "cache": str(tmp_path) if cached else ""}
    alone, paired = small(**options), small(**options, pairs=True)
    if cached:
        alone.prepare()
        before = files(tmp_path)
        with pytest.raises(RuntimeError, match=r"1 of 2 parts of the train split are not in .*: call prepare\(\) first"):
            paired.split("train")
        paired.prepare()
        assert {name: files(tmp_path)[name] for name in before} == before
    assert alone.fingerprint == paired.fingerprint
    assert (alone.pairs, paired.pairs) == (False, True)
    for split, index in (("train", 0), ("train", 4 * 5 + 1), ("test", 3)):
        plain, sample = alone.split(split)[index], paired.split(split)[index]
        assert plain.clean is None
        assert np.array_equal(plain.image, sample.image)
        clean, _, _ = paired.make_pair(split, index % 4)
        straight = torch.from_numpy(clean).permute(2, 0, 1)
        assert torch.equal(sample.clean, dataclasses.replace(plain, image=straight, turn=0).turned(plain.turn).image)
        for region, mask in zip(sample.record.regions, sample.masks(), strict=True):
            same = bool((sample.image[:, mask] == sample.clean[:, mask]).all())
            assert same or region.distortions
