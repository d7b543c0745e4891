"""The official layout, small: archives as downloaded, one missing, one cut short; killed at several moments, the bytes are the same."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

import prepare
from components import rle
from components.registry import ConfigError
from datamodules import label_mapping, seagull_100w
from datamodules.alone import alone
from datamodules.archives import ImageFiles
from datamodules.datasets.indexed import Indexed
from datamodules.label_mapping import load_mapping
from datamodules.records import SPLITS
from datamodules.seagull_100w import Indexer
from datamodules.tables import read_records
from datamodules.validation import validate
from tests.datamodules.seagull_100w_files import (
    DAMAGED,
    HEIGHT,
    MISSING,
    REGIONS,
    SETTINGS,
    WIDTH,
    masks_of,
    scores_of,
    write_images,
    write_labels,
)

REFERENCES = 9
IMAGES = REFERENCES * 6 * SETTINGS
SHARES = (0.6, 0.2, 0.2)
BY_NAME = {"image": "$key", "regions": "$self"}


@pytest.fixture(scope="module", autouse=True)
def small_pieces():
    """So that a small data set has several pieces of each label file, and several tables."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seagull_100w, "CHUNK", 3000)
        patch.setattr(seagull_100w, "BUCKET", 12000)
        yield


@pytest.fixture(scope="module")
def downloaded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("download") / "SEAGULL 100w's"
    write_labels(folder, REFERENCES)
    write_images(folder, REFERENCES)
    return folder


@pytest.fixture(scope="module")
def indexed(downloaded):
    out = downloaded.parent / "tables"
    return out, Indexer(downloaded, out, load_mapping(None), SHARES, 0).run()


def tables(out):
    return sorted(out.glob("*.parquet"))


def contents(out):
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def test_every_image_has_its_regions_masks_and_scores(indexed):
    out, found = indexed
    records = read_records(tables(out))
    assert len(tables(out)) > 2
    assert found["counts"] == {
        "images": IMAGES,
        "masks": REFERENCES * REGIONS,
        "masks left out": 0,
        "masks without a score": 0,
        "regions": IMAGES * REGIONS,
        "scores": IMAGES * REGIONS,
        "scores without a mask": 0,
        "masks that stand twice": 0,
        "scores that stand twice": 0,
        "masks that stand twice and differ": 0,
        "scores that stand twice and differ": 0,
        "masks of another size": 0,
    }
    assert len({r.id for r in records}) == IMAGES
    for record in records:
        folder, reference = record.id.split("/")
        kind, setting = folder.split("_")
        assert (record.source, record.path) == (reference, f"Dist.Images/{kind}/{folder}.zip::{folder}/{reference}.png")
        assert record.reference == f"Ref.Images.zip::Ref.Images/{reference}.png"
        assert record.split in SPLITS
        for region, mask, score in zip(
            record.measured().regions, masks_of(reference), scores_of(reference, kind.lower(), int(setting)), strict=True
        ):
            assert region.id == f"{record.id}/{mask['id']}"
            assert {"size": [record.height, record.width], "counts": region.counts} == mask["segmentation"]
            assert (region.box, region.area) == (rle.box(mask["segmentation"]), rle.area(mask["segmentation"]))
            assert (region.semantic, region.description) == (mask["semantic"], mask["description"])
            assert region.quality == score["quality_score"]
            assert region.importance == 1 - score["importance_score"]  # as measured, a low score is an important region
            severity = ("extreme", "severe", "moderate", "minor", "trivial")[min(int(region.quality * 5), 4)]
            assert region.distortions == ((kind.lower(), severity),)


def test_versions_of_a_reference_stand_together_in_one_split(indexed):
    records = read_records(tables(indexed[0]))
    order = list(dict.fromkeys(r.source for r in records))
    assert [r.source for r in records] == [s for s in order for _ in range(6 * SETTINGS)]
    assert len({(r.source, r.split) for r in records}) == REFERENCES


def test_archives_give_checksums_and_what_is_missing_is_told(indexed, downloaded):
    out, found = indexed
    for record in read_records(tables(out)):
        whole = not {MISSING, DAMAGED} & {record.id.split("/")[0]}
        assert record.hash.startswith("crc32:") == whole
    assert found["images"] == os.path.relpath(downloaded, out)
    dataset = Indexed(root=str(out))
    told = rf"90 of {IMAGES} images .*{MISSING}\.zip is missing \(9 images\); .*{DAMAGED}\.zip is damaged \(9 images\)"
    with pytest.warns(UserWarning, match=told):
        dataset.prepare()
    sample = dataset.split("train")[0]
    assert sample.masks().any((1, 2)).all()
    assert dataset.describe()["made"]["mapping"]["scales"]["importance"]["direction"] == "lower"
    report = validate(out, ImageFiles(downloaded), decode=True)
    assert report.counts == {"archive missing": 2, "image missing": 2 * REFERENCES, "reference missing": REFERENCES}  # Ref.Images.zip


def test_a_mapping_by_name_gives_the_same_tables(indexed, downloaded, tmp_path):
    write_labels(tmp_path / "named", REFERENCES, mapping=True)
    (tmp_path / "named" / "Dist.Images").symlink_to(downloaded / "Dist.Images")
    mine = tmp_path / "mine.yaml"
    mine.write_text(json.dumps({"masks": BY_NAME, "scores": BY_NAME}))  # YAML, too
    Indexer(tmp_path / "named", tmp_path / "out", load_mapping(mine), SHARES, 0).run()
    assert read_records(tables(tmp_path / "out")) == read_records(tables(indexed[0]))


def test_regions_by_name_by_place_and_deeper_keys(indexed, tmp_path):
    """Regions in a mapping, numbers below keys of their own, and regions that have no name but their place."""
    labels = tmp_path / "Labels"
    labels.mkdir()
    mapping = load_mapping(None)
    ids = [f"{n:06d}" for n in range(2)]
    masks = [{"meta": {"file": f"Ref/{i}.png"}, "rois": [{**m, "id": None} for m in masks_of(i)]} for i in ids]
    scores = [
        {"img": f"Noise_1/{i}.png", "rois": {str(s["id"] + 1): {"q": {"value": s["quality_score"]}} for s in scores_of(i, "noise", 1)}}
        for i in ids
    ]
    (labels / "m.json").write_text(json.dumps(masks))
    (labels / "s.json").write_text(json.dumps(scores))
    mapping["masks"] |= {"file": "Labels/m.json", "image": "meta.file", "regions": "rois", "region": "$position", "semantic": ""}
    mapping["scores"] |= {
        "file": "Labels/s.json",
        "image": "img",
        "regions": "rois",
        "region": "$key",
        "quality": "q.value",
        "importance": "",
    }
    mapping["severity"] = "unknown"
    Indexer(tmp_path, tmp_path / "out", mapping, SHARES, 0).run()
    found = {r.id: r for r in read_records(tables(tmp_path / "out"))}
    theirs = {r.id: r for r in read_records(tables(indexed[0]))}
    assert set(found) == {f"Noise_1/{i}" for i in ids}
    for name, record in found.items():
        assert [r.counts for r in record.regions] == [r.counts for r in theirs[name].regions]
        assert [r.quality for r in record.regions] == [r.quality for r in theirs[name].regions]
        assert {(r.importance, r.semantic, r.distortions) for r in record.regions} == {(None, None, None)}


def test_masks_and_scores_that_do_not_meet_are_counted(tmp_path):
    write_labels(tmp_path, 2)
    path = tmp_path / "Labels" / "SEAGULL-100w_mask-based-rois.json"
    masks = json.loads(path.read_text())
    masks[0]["annotations"][0]["segmentation"]["counts"] = "no mask"
    masks[0]["annotations"][1]["id"] = 77
    path.write_text(json.dumps(masks))
    counts = Indexer(tmp_path, tmp_path / "out", load_mapping(None), SHARES, 0).run()["counts"]
    versions = 6 * SETTINGS
    assert (counts["masks"], counts["masks left out"], counts["masks without a score"]) == (5, 1, 1)
    assert (counts["scores without a mask"], counts["regions"]) == (2 * versions, 4 * versions)


def test_unknown_keys_are_shown_with_how_to_name_them(tmp_path):
    labels = tmp_path / "Labels"
    labels.mkdir()
    (labels / "SEAGULL-100w_mask-based-rois.json").write_text(json.dumps([{"image_id": 3, "rois": [{"rle": {"size": [4, 5]}}]}]))
    with pytest.raises(ConfigError) as raised:
        Indexer(tmp_path, tmp_path / "out", load_mapping(None), SHARES, 0)
    text = str(raised.value)
    for said in (
        "masks.image: no 'id'; masks.regions: no 'annotations'",
        "It is a list of records, one of which is",
        "image_id: int, 3",
        "rois: list of 1",
        "size: list of 2, [4, 5]",
        "give it as --mapping:\nmasks:\n  image: <path of keys>",
    ):
        assert said in text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"masks": {"file": "Labels/nothing.json"}}, FileNotFoundError, r"nothing\.json is missing: fetch it, or name it .*masks\.file"),
        ({"masks": {"name": "^nothing$()"}}, ConfigError, r"masks\.name: .* finds no reference in the image '000000'"),
        ({"scores": {"name": "(x)(y)(z)"}}, ConfigError, r"scores\.name: .* finds no type, setting and reference in the image 'Blur_0/"),
        ({"types": {"blur": "haze"}}, ConfigError, "types: a distortion is called 'Blur', known are blur, colorfulness"),
        ({"mask": {}}, ConfigError, "unknown key 'mask'. Did you mean 'masks'"),
        ({"masks": {"rle": "x"}}, ConfigError, "masks: unknown key 'rle'"),
        ({"masks": 3}, ConfigError, "masks is a mapping with the keys file, at, image"),
        ({"masks": {"sides": ["width"]}}, ConfigError, r"masks\.sides: \[height, width\] or \[width, height\], got \['width'\]"),
        ({"severity": "folder"}, ConfigError, "severity: 'quality' or 'unknown', got 'folder'"),
        ({"scales": {"quality": {"low": 3}}}, ValueError, "a scale goes from a lower to a higher"),
        ([1], ConfigError, "must hold a mapping like seagull_100w.yaml, got list"),
    ],
)
def test_a_mapping_that_will_not_do(downloaded, tmp_path, change, error, message):
    (tmp_path / "mine.yaml").write_text(json.dumps(change))
    with pytest.raises(error, match=message):
        Indexer(downloaded, tmp_path / "out", load_mapping(tmp_path / "mine.yaml"), SHARES, 0).run()


def relabelled(folder, name, change, references=2):
    """Labels with every region changed: `change(region)`."""
    write_labels(folder, references)
    path = folder / "Labels" / f"SEAGULL-100w_{name}.json"
    records = json.loads(path.read_text())
    for region in (region for record in records for region in record["annotations"]):
        change(region)
    path.write_text(json.dumps(records))


def indexer(folder, out="out", **mapping):
    (folder / "mine.yaml").write_text(json.dumps(mapping))
    return Indexer(folder, folder / out, load_mapping(folder / "mine.yaml"), SHARES, 0)


def test_masks_that_are_lists_of_run_lengths_are_those_that_are_text(indexed, tmp_path):
    def listed(region):
        edges = np.flatnonzero(np.diff(rle.decode(region["segmentation"]).T.ravel(), prepend=False, append=False))
        region["segmentation"]["counts"] = np.diff(edges, prepend=0, append=HEIGHT * WIDTH).tolist()

    relabelled(tmp_path, "mask-based-rois", listed)
    assert indexer(tmp_path).run()["counts"]["masks left out"] == 0
    theirs = {r.id: r for r in read_records(tables(indexed[0]))}
    for record in read_records(tables(tmp_path / "out")):
        assert [r.counts for r in record.regions] == [r.counts for r in theirs[record.id].regions]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"counts": "no mask"}, r"'segmentation\.counts' 'no mask': malformed RLE counts"),
        ({"counts": [3, -1, 5]}, r"'segmentation\.counts' '\[3,-1,5\]': malformed RLE counts"),
        ({"counts": rle.encode(np.zeros((HEIGHT, WIDTH)))["counts"]}, "it covers no pixel"),
        ({"size": [HEIGHT]}, rf"'segmentation\.size' \[{HEIGHT}\].*the size of an RLE is \[height, width\]"),
    ],
)
def test_a_file_without_a_mask_is_refused_at_once(tmp_path, change, said):
    relabelled(tmp_path, "mask-based-rois", lambda region: region["segmentation"].update(change))
    with pytest.raises(ConfigError, match=rf"none of \d masks .* is one\. That of region '0' of image '000000' has .*{said}"):
        indexer(tmp_path).run()


def test_names_that_never_meet_are_refused_with_one_of_each(tmp_path):
    relabelled(tmp_path, "mask-based-rois", lambda region: region.update(id=f"r{region['id']}"))
    masks, scores = (rf"the reference '00000\d' and its region '{of}\d'" for of in ("r", ""))
    with pytest.raises(ConfigError, match=rf"no score has a mask.*rois\.json names {masks}, .*scores\.json {scores}"):
        indexer(tmp_path).run()
    assert not (tmp_path / "out" / "data.json").exists()


@pytest.mark.parametrize("task", ["quality", "importance"])
def test_scores_of_another_scale_are_refused_with_their_range(tmp_path, task):
    def hundredfold(region):
        region[f"{task}_score"] *= 100

    relabelled(tmp_path, "scores", hundredfold)
    with pytest.raises(
        ConfigError, match=rf"(?s)scores of {task} .* off their scale, 0 to 1: they go from [\d.]+ to [\d.]+\. Say .*\s+{task}: {{low"
    ):
        indexer(tmp_path).run()
    indexer(tmp_path, "again", scales={task: {"low": 0, "high": 100}}).run()
    records = read_records(tables(tmp_path / "again"))
    assert all(0 <= getattr(r, task) <= 1 for record in records for r in record.regions)


def test_a_score_off_its_scale_gives_no_severity(tmp_path):
    numbers = iter([-0.01, 1.01, 1 + 1e-12, float("nan"), 0.5, 0.5] * 99)

    def every(region):
        region["quality_score"] = next(numbers)

    relabelled(tmp_path, "scores", every)
    indexer(tmp_path).run()
    regions = [r for record in read_records(tables(tmp_path / "out")) for r in record.regions]
    assert {(r.quality is None, r.distortions is None) for r in regions} == {(True, True), (False, False)}
    assert {r.distortions[0][1] for r in regions if r.distortions} == {"trivial", "moderate"}


def test_sides_in_the_other_order_are_refused_by_an_image_and_read_if_that_is_said(indexed, downloaded, tmp_path):
    relabelled(tmp_path, "mask-based-rois", lambda region: region["segmentation"]["size"].reverse(), REFERENCES)
    (tmp_path / "Dist.Images").symlink_to(downloaded / "Dist.Images")
    with pytest.raises(
        ConfigError, match=rf"(?s)is {WIDTH} x {HEIGHT} pixels \(width x height\), its masks {HEIGHT} x {WIDTH}: .*sides: \[width, height\]"
    ):
        indexer(tmp_path).run()
    indexer(tmp_path, "again", masks={"sides": ["width", "height"]}).run()
    assert [p.read_bytes() for p in tables(tmp_path / "again")] == [p.read_bytes() for p in tables(indexed[0])]
    with pytest.raises(ConfigError, match=r"sides: \[height, width\]"):
        Indexer(downloaded, tmp_path / "wrongly", load_mapping(tmp_path / "mine.yaml"), SHARES, 0).run()


def test_one_image_on_its_side_says_nothing_of_the_others(downloaded, tmp_path):
    numbers = itertools.count()
    relabelled(tmp_path, "mask-based-rois", lambda region: next(numbers) < REGIONS and region["segmentation"]["size"].reverse(), REFERENCES)
    (tmp_path / "Dist.Images").symlink_to(downloaded / "Dist.Images")
    indexer(tmp_path).run()
    turned = {r.source for r in read_records(tables(tmp_path / "out")) if (r.height, r.width) == (WIDTH, HEIGHT)}
    assert len(turned) == 1


def test_shares_that_are_none(downloaded, tmp_path):
    with pytest.raises(ConfigError, match="the shares of train, val and test are at least 0 and sum to 1, got"):
        Indexer(downloaded, tmp_path / "out", load_mapping(None), (0.5, 0.2, 0.2), 0)


def test_what_stands_twice_is_taken_once(indexed, tmp_path):
    write_labels(tmp_path, REFERENCES)
    labels = tmp_path / "Labels"
    for name in ("mask-based-rois", "scores"):
        path = labels / f"SEAGULL-100w_{name}.json"
        records = json.loads(path.read_text())
        path.write_text(json.dumps([*records, records[0]]))
    counts = Indexer(tmp_path, tmp_path / "out", load_mapping(None), SHARES, 0).run()["counts"]
    assert (counts["masks that stand twice"], counts["scores that stand twice"]) == (REGIONS, REGIONS)
    assert (counts["masks that stand twice and differ"], counts["scores that stand twice and differ"]) == (0, 0)
    assert (counts["scores without a mask"], counts["regions"], counts["images"]) == (0, IMAGES * REGIONS, IMAGES)
    theirs = {r.id: [(x.id, x.quality, x.counts) for x in r.regions] for r in read_records(tables(indexed[0]))}
    assert {r.id: [(x.id, x.quality, x.counts) for x in r.regions] for r in read_records(tables(tmp_path / "out"))} == theirs


def test_of_scores_that_disagree_the_same_one_is_taken_in_any_order(tmp_path):
    found = []
    for turned in (1, -1):
        folder = tmp_path / str(turned)
        write_labels(folder, 1)
        path = folder / "Labels" / "SEAGULL-100w_scores.json"
        records = json.loads(path.read_text())
        other = json.loads(json.dumps(records[0]))
        other["annotations"][0]["quality_score"] += 1e-3
        path.write_text(json.dumps([*records, other][::turned]))
        counts = Indexer(folder, folder / "out", load_mapping(None), SHARES, 0).run()["counts"]
        assert (counts["scores that stand twice"], counts["scores that stand twice and differ"]) == (REGIONS, 1)
        found.append(read_records(tables(folder / "out")))
    assert found[0] == found[1]


def test_masks_that_disagree_are_counted(tmp_path):
    write_labels(tmp_path, 1)
    path = tmp_path / "Labels" / "SEAGULL-100w_mask-based-rois.json"
    records = json.loads(path.read_text())
    other = json.loads(json.dumps(records[0]))
    other["annotations"][0]["segmentation"] = other["annotations"][1]["segmentation"]
    path.write_text(json.dumps([*records, other]))
    counts = Indexer(tmp_path, tmp_path / "out", load_mapping(None), SHARES, 0).run()["counts"]
    assert (counts["masks that stand twice"], counts["masks that stand twice and differ"]) == (REGIONS, 1)


@pytest.mark.parametrize("odd", range(REGIONS))
def test_a_mask_of_another_size_is_left_out_and_the_others_are_kept(tmp_path, odd):
    """Wherever it stands among them: the size of an image is that of most of its masks."""
    write_labels(tmp_path, 2)
    write_images(tmp_path, 2)
    path = tmp_path / "Labels" / "SEAGULL-100w_mask-based-rois.json"
    masks = json.loads(path.read_text())
    masks[0]["annotations"][odd]["segmentation"] = rle.encode(np.ones((7, 9), bool))
    path.write_text(json.dumps(masks))
    counts = Indexer(tmp_path, tmp_path / "out", load_mapping(None), SHARES, 0).run()["counts"]
    versions = 6 * SETTINGS
    assert (counts["masks of another size"], counts["masks left out"], counts["masks that stand twice"]) == (1, 0, 0)
    assert (counts["scores without a mask"], counts["regions"]) == (versions, (2 * REGIONS - 1) * versions)
    kept = [n for n in range(REGIONS) if n != odd]
    for record in read_records(tables(tmp_path / "out")):
        numbers = kept if record.source == "000000" else range(REGIONS)
        assert [r.id for r in record.regions] == [f"{record.id}/{n}" for n in numbers]
        assert (record.height, record.width) == (HEIGHT, WIDTH)
        assert [rle.decode({"size": [HEIGHT, WIDTH], "counts": r.counts}).sum() for r in record.regions] == [64] * len(numbers)
    report = validate(tmp_path / "out", ImageFiles(tmp_path), decode=True)
    assert set(report.counts) == {"archive missing", "image missing", "reference missing"}


def test_of_two_sizes_as_frequent_as_each_other_the_larger_is_taken(tmp_path):
    """Whichever stands first."""
    for turned in (1, -1):
        folder = tmp_path / str(turned)
        write_labels(folder, 1)
        path = folder / "Labels" / "SEAGULL-100w_mask-based-rois.json"
        masks = json.loads(path.read_text())
        regions = masks[0]["annotations"][:2]
        regions[0]["segmentation"] = rle.encode(np.ones((7, 9), bool))
        masks[0]["annotations"] = regions[::turned]
        path.write_text(json.dumps(masks))
        counts = Indexer(folder, folder / "out", load_mapping(None), SHARES, 0).run()["counts"]
        records = read_records(tables(folder / "out"))
        assert counts["masks of another size"] == 1
        assert {(r.height, r.width, tuple(x.id for x in r.regions)) for r in records} == {(HEIGHT, WIDTH, (f"{r.id}/1",)) for r in records}


def test_an_archive_that_comes_later_changes_no_byte(downloaded, indexed):
    """A run is killed, an archive is fetched, the run goes on: its tables are those of a run that nobody interrupted."""
    late, out = downloaded / "Dist.Images" / "Colorfulness" / f"{MISSING}.zip", indexed[0].parent / "late"
    work = out / seagull_100w.WORK
    work.mkdir(parents=True)
    claim = {k: v for k, v in indexed[1].items() if k != "counts"}
    (work / seagull_100w.CLAIM).write_text(json.dumps({**claim, "pieces": seagull_100w.PIECES}))
    shutil.copyfile(downloaded / "Dist.Images" / "Blur" / "Blur_0.zip", late)
    try:
        Indexer(downloaded, out, load_mapping(None), SHARES, 0).run()
    finally:
        late.unlink()
    assert contents(out) == contents(indexed[0])


def test_an_archive_that_went_meanwhile_is_told(downloaded, indexed, tmp_path):
    work = tmp_path / "out" / seagull_100w.WORK
    work.mkdir(parents=True)
    made = {k: v for k, v in indexed[1].items() if k != "counts"}
    made |= {"images": os.path.relpath(downloaded, tmp_path / "out"), "archives": {**made["archives"], "gone.zip": 7}}
    made["pieces"] = seagull_100w.PIECES
    (work / seagull_100w.CLAIM).write_text(json.dumps(made))
    with pytest.raises(FileExistsError, match=r"was begun with other archives: gone\.zip had 7 bytes, and has 0 now\. Put it back"):
        Indexer(downloaded, tmp_path / "out", load_mapping(None), SHARES, 0)


def test_a_folder_that_another_run_writes_into(downloaded, tmp_path):
    with alone(tmp_path / "out"), pytest.raises(FileExistsError, match="another run is writing into"):
        Indexer(downloaded, tmp_path / "out", load_mapping(None), SHARES, 0)


def test_records_below_a_key_and_a_first_image_without_regions(indexed, tmp_path):
    write_labels(tmp_path, REFERENCES)
    mapping = load_mapping(None)
    for name, where in (("mask-based-rois", "masks"), ("scores", "scores")):
        path = tmp_path / "Labels" / f"SEAGULL-100w_{name}.json"
        records = [{"id": "Blur_0/none", "annotations": []}, *json.loads(path.read_text())]
        path.write_text(json.dumps({"info": {"annotations": 3}, "annotations": records, "licences": []}))
        mapping[where]["at"] = "annotations"
    Indexer(tmp_path, tmp_path / "out", mapping, SHARES, 0).run()
    theirs = {r.id: [(x.id, x.quality, x.counts) for x in r.regions] for r in read_records(tables(indexed[0]))}
    assert {r.id: [(x.id, x.quality, x.counts) for x in r.regions] for r in read_records(tables(tmp_path / "out"))} == theirs


def _renamed(tmp_path, of):
    """The quality of records from `of` on stands under another key."""
    write_labels(tmp_path, REFERENCES)
    path = tmp_path / "Labels" / "SEAGULL-100w_scores.json"
    records = json.loads(path.read_text())
    for record in records[of:]:
        record["annotations"] = [{("quality" if k == "quality_score" else k): v for k, v in r.items()} for r in record["annotations"]]
    path.write_text(json.dumps(records))


def test_labels_that_some_records_lack_are_counted(tmp_path):
    _renamed(tmp_path, -1)
    counts = Indexer(tmp_path, tmp_path / "out", load_mapping(None), SHARES, 0).run()["counts"]
    assert counts["scores without quality_score"] == REGIONS


def test_keys_that_change_in_the_middle_of_a_file_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(seagull_100w, "FEW", 10)
    _renamed(tmp_path, 50)
    told = r"scores\.json: of \d+ regions from byte [\d,]+ to [\d,]+ none has 'quality_score' \(scores\.quality\), which earlier ones have"
    with pytest.raises(ConfigError, match=told):
        Indexer(tmp_path, tmp_path / "out", load_mapping(None), SHARES, 0).run()


def _nameless(tmp_path, name, of):
    """The regions of records from `of` on stand under another key."""
    write_labels(tmp_path, REFERENCES)
    path = tmp_path / "Labels" / f"SEAGULL-100w_{name}.json"
    records = json.loads(path.read_text())
    for record in records[of:]:
        record["rois"] = record.pop("annotations")
    path.write_text(json.dumps(records))


@pytest.mark.parametrize(
    ("name", "where", "regions"), [("mask-based-rois", "masks", IMAGES - 6 * SETTINGS), ("scores", "scores", IMAGES - 1)]
)
def test_images_that_do_not_say_what_their_regions_are_are_counted(tmp_path, name, where, regions):
    """Not so those that say that they have none."""
    _nameless(tmp_path, name, -1)
    path = tmp_path / "Labels" / f"SEAGULL-100w_{name}.json"
    path.write_text(json.dumps([*json.loads(path.read_text()), {"id": "Blur_0/none", "annotations": []}]))
    counts = Indexer(tmp_path, tmp_path / "out", load_mapping(None), SHARES, 0).run()["counts"]
    assert counts[f"images of {where} without annotations"] == 1
    assert counts["regions"] == regions * REGIONS
    assert {k for k in counts if " without " in k} == {
        "masks without a score", "scores without a mask", f"images of {where} without annotations"
    }  # fmt: skip


@pytest.mark.parametrize(("name", "where"), [("mask-based-rois", "masks"), ("scores", "scores")])
def test_a_key_of_regions_that_changes_in_the_middle_of_a_file_is_refused(tmp_path, monkeypatch, name, where):
    monkeypatch.setattr(seagull_100w, "FEW", 2)
    _nameless(tmp_path, name, 4)
    told = rf"{name}\.json: of \d+ images from byte [\d,]+ to [\d,]+ none has 'annotations' \({where}\.regions\), which earlier ones have"
    with pytest.raises(ConfigError, match=told):
        Indexer(tmp_path, tmp_path / "out", load_mapping(None), SHARES, 0).run()


def test_what_the_first_region_lacks_is_looked_for_in_the_others(indexed, tmp_path, monkeypatch):
    """A null, a key that it has not, and more images without regions than are looked at together."""
    monkeypatch.setattr(label_mapping, "FIRST", 60)
    for name in ("mask-based-rois", "scores"):
        write_labels(tmp_path, REFERENCES)
        path = tmp_path / "Labels" / f"SEAGULL-100w_{name}.json"
        records = json.loads(path.read_text())
        first = records[0]["annotations"][0]
        if name == "scores":
            first["quality_score"] = None
        else:
            del first["description"]
        none = [{"id": f"Blur_0/none{n}", "annotations": []} for n in range(5)]
        path.write_text(json.dumps([*none, *records]))
        out = tmp_path / name
        counts = Indexer(tmp_path, out, load_mapping(None), SHARES, 0).run()["counts"]
        lacking = "scores without quality_score" if name == "scores" else "masks without description"
        assert counts[lacking] == 1
        assert counts["regions"] == IMAGES * REGIONS
        assert [r.id for r in read_records(tables(out))] == [r.id for r in read_records(tables(indexed[0]))]


def test_first_images_that_do_not_say_what_their_regions_are(tmp_path):
    """The whole of a large file is not read for it."""
    _nameless(tmp_path, "scores", 0)
    with pytest.raises(ConfigError, match=r"scores\.regions: no 'annotations'"):
        Indexer(tmp_path, tmp_path / "out", load_mapping(None), SHARES, 0)


def test_a_label_file_without_records(tmp_path):
    write_labels(tmp_path, 1)
    (tmp_path / "Labels" / "SEAGULL-100w_scores.json").write_text("[]")
    with pytest.raises(ConfigError, match="holds no records"):
        Indexer(tmp_path, tmp_path / "out", load_mapping(None), SHARES, 0)


def test_tables_of_another_version_are_not_taken_for_ours(downloaded, indexed, tmp_path):
    """Those of version 3 hold hashes with the packed length."""
    made = json.loads((indexed[0] / "data.json").read_text())
    older = re.sub(r"version \d+", "version 3", made["made_by"], count=1)
    (tmp_path / "data.json").write_text(json.dumps({**made, "made_by": older}))
    with pytest.raises(FileExistsError, match=r"holds tables by prepare\.py index, version 3, .*Delete the folder and index again"):
        Indexer(downloaded, tmp_path, load_mapping(None), SHARES, 0)


def test_what_another_version_has_begun_is_not_gone_on_with(downloaded, indexed):
    """The tables that it would make are the same, its pieces are not."""
    out = indexed[0].parent / "older"
    shutil.copytree(indexed[0], out)
    (out / "data.json").unlink()
    (out / seagull_100w.WORK).mkdir()
    (out / seagull_100w.WORK / "made.json").write_text((indexed[0] / "data.json").read_text())
    with pytest.raises(FileExistsError, match=r"was begun by another version of this command, .* delete it"):
        Indexer(downloaded, out, load_mapping(None), SHARES, 0)


def test_another_folders_files_are_not_mixed_with_ours(downloaded, indexed, tmp_path):
    with pytest.raises(FileExistsError, match="holds tables of other label files or options"):
        Indexer(downloaded, indexed[0], load_mapping(None), SHARES, 1)
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(FileExistsError, match="is not empty, and holds no tables of this command"):
        Indexer(downloaded, tmp_path, load_mapping(None), SHARES, 0)
    before = contents(indexed[0])
    assert Indexer(downloaded, indexed[0], load_mapping(None), SHARES, 0).run() == indexed[1]
    assert contents(indexed[0]) == before


KILLED = """
import itertools, json, os, signal, sys
from pathlib import Path
from datamodules import label_mapping, seagull_100w
from datamodules.label_mapping import load_mapping
from datamodules.tables import RecordWriter

seagull_100w.CHUNK, seagull_100w.BUCKET = 3000, 12000
folder, out = Path(sys.argv[1]), Path(sys.argv[2])


def run(moment, after):
    moments, begun = itertools.count(1), (out.parent / "begun").open("a")

    def deadly(method):
        def counted(*given):
            last = next(moments) == moment
            if last and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            done = method(*given)
            if last:
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        return counted

    def noted(method):
        def said(self, *given):
            print(next(g.stem for g in given if isinstance(g, Path) and g.name != "chunk.json"), file=begun, flush=True)
            return method(self, *given)

        return said

    Path.replace, RecordWriter.write_table = deadly(Path.replace), deadly(RecordWriter.write_table)
    for stage in ("_write_masks", "_write_scores", "_write_table"):
        setattr(seagull_100w.Indexer, stage, noted(getattr(seagull_100w.Indexer, stage)))
    seagull_100w.Indexer(folder, out, load_mapping(None), (0.6, 0.2, 0.2), 0).run()


for number, moment in zip(range(60), itertools.cycle((1, 6, 2, 5))):
    child = os.fork()  # of a process that has run nothing yet
    if child == 0:
        run(moment, number % 3 == 1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    files = [p for p in out.rglob("*") if p.suffix in (".parquet", ".arrow") and not p.name.startswith(".")]
    whole = {p.stem: [p.stat().st_ino, p.stat().st_mtime_ns] for p in files}
    begun = (out.parent / "begun").read_text().split()
    (out.parent / "begun").unlink()
    print(json.dumps({"status": status, "begun": begun, "whole": whole}), flush=True)
    if status != -signal.SIGKILL:
        break
"""


def test_killed_at_many_moments_it_goes_on_and_the_bytes_are_the_same(downloaded, indexed, root):
    """Before, in the middle of and after the writing of files: no piece and no table that is whole is begun again, or touched."""
    out = indexed[0].parent / "killed"
    command = [sys.executable, "-c", KILLED, str(downloaded), str(out)]
    told = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, text=True, timeout=300, check=True).stdout
    runs = [json.loads(line) for line in told.splitlines()]
    assert [r["status"] for r in runs] == [-signal.SIGKILL] * (len(runs) - 1) + [0]
    done: dict[str, list[int]] = {}
    for run in runs:
        assert not done.keys() & set(run["begun"])
        assert {name: run["whole"].get(name, stamp) for name, stamp in done.items()} == done
        done |= run["whole"]
    kinds = {kind: [name for name in done if name.startswith(kind)] for kind in ("masks", "scores", "part")}
    assert all(len(names) > 1 for names in kinds.values())
    begun = [name for run in runs for name in run["begun"]]
    assert set(begun) == set(done)
    assert len(done) < len(begun) < len(done) + len(runs)  # of what was begun, each run lost one at most
    assert {p.stem: [p.stat().st_ino, p.stat().st_mtime_ns] for p in tables(out)} == {n: done[n] for n in kinds["part"]}
    assert contents(out) == contents(indexed[0])


def test_a_table_that_was_deleted_is_made_again(downloaded, indexed):
    """Beside the download as the others, for `data.json` tells the way to it."""
    out = indexed[0].parent / "deleted"
    shutil.copytree(indexed[0], out)
    tables(out)[1].unlink()
    assert Indexer(downloaded, out, load_mapping(None), SHARES, 0).run() == indexed[1]
    assert contents(out) == contents(indexed[0])


@pytest.mark.parametrize("left", [(), ("made.json.draft",)])
def test_killed_before_it_claims_the_folder(downloaded, indexed, tmp_path, left):
    work = tmp_path / "out" / seagull_100w.WORK
    work.mkdir(parents=True)
    for name in left:
        (work / name).write_text('{"made_by"')
    Indexer(downloaded, tmp_path / "out", load_mapping(None), SHARES, 0).run()
    assert [p.name for p in tables(tmp_path / "out")] == [p.name for p in tables(indexed[0])]
    assert read_records(tables(tmp_path / "out")) == read_records(tables(indexed[0]))


def test_a_work_folder_of_somebody_else_is_not_ours(downloaded, tmp_path):
    work = tmp_path / "out" / seagull_100w.WORK
    work.mkdir(parents=True)
    (work / "theirs.txt").write_text("kept")
    with pytest.raises(FileExistsError, match="is not empty, and holds no tables of this command"):
        Indexer(downloaded, tmp_path / "out", load_mapping(None), SHARES, 0)


def test_the_command(downloaded, tmp_path, capsys):
    found = prepare.main(["index", str(downloaded), str(tmp_path / "out"), "--importance", "higher", "--shares", "0.6", "0.2", "0.2"])
    assert found["mapping"]["scales"]["importance"]["direction"] == "higher"
    said = capsys.readouterr().out
    assert f"{IMAGES:>14,} images" in said
    assert "importance: higher scores are the more important (not published" in said
    assert "90 of 108 images (83.3%) can be used" in said
    assert "severities: five equal steps of the quality scores (not published" in said
