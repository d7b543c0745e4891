"""Data from photographs, as a job: what is made, and that it is the same bytes wherever, with whomever and however often interrupted."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import prepare
from components import rle
from components.mask_encoders.base import MASK_ENCODERS
from components.registry import ConfigError, configured
from configs.schema import load_config
from datamodules import raw, synthesis_shards
from datamodules.datasets.base import DATASETS
from datamodules.datasets.photographs import Photographs
from datamodules.distortions.base import DISTORTIONS, Distortion
from datamodules.engines.base import EngineError, make_held
from datamodules.images import ImageError, load_image
from datamodules.procedural import dead_leaves
from datamodules.quality_labels.local_similarity import LocalSimilarity
from datamodules.records import SPLITS, encode_png
from datamodules.references import ChangedError
from datamodules.synthesis_job import Synthesis
from datamodules.tables import read_records
from tests.datamodules.raw_files import write_dng

MIXED = {"mode": "mixed", "images": 37, "size": 48, "regions": 3, "several": 3, "seed": 5}
WHOLE = {"size": 32, "distortions": ["noise"], "objects": 2, "components": 4, "val": 0, "test": 0.3}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Two scenes of two files and two of one, a broken file, and a copy."""
    folder = tmp_path_factory.mktemp("photographs")
    (folder / "b").mkdir()
    for i, name in enumerate(("a.left.png", "a.right.png", "b/a.1.png", "b/a.2.png", "c.png", "d.png")):
        PIL.Image.fromarray(dead_leaves(64, np.random.default_rng(i))[: 64 - 4 * i]).save(folder / name)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut")
    shutil.copy(folder / "c.png", folder / "z.png")
    return folder


def job(photographs: Path, out: Path, engine: str = "inline", **options) -> Synthesis:
    return configured(Synthesis, {"engine": {"plugin": engine}, **options}, "synthesize")(photographs, out)


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def records(folder: Path):
    return read_records(sorted(folder.glob("part-*.parquet")))


@pytest.fixture(scope="module")
def mixed(photographs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixed") / "data"
    return folder, job(photographs, folder, **MIXED).run()


@pytest.fixture(scope="module")
def whole(photographs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "data"
    return folder, job(photographs, folder, **WHOLE).run()


def test_the_manifest_says_what_the_data_is(photographs, mixed):
    folder, said = mixed
    data = json.loads((folder / "data.json").read_text())
    assert {k: v for k, v in said.items() if k != "seconds"} == data
    assert data["counts"]["images"] == len(records(folder)) == 37 - sum(s["images"] for s in data["skipped"]) == 32
    assert data["counts"]["regions"] == sum(len(r.regions) for r in records(folder))
    assert {s: data["counts"][s] for s in SPLITS} == {s: sum(r.split == s for r in records(folder)) for s in SPLITS}
    assert data["left_out"] == [{"name": "z.png", "images": 0, "why": "a copy of c.png"}]
    assert data["skipped"] == [
        {"name": "broken.jpg", "images": 5, "why": data["skipped"][0]["why"]},
    ]
    assert data["skipped"][0]["why"].startswith("image broken.jpg cannot be decoded")
    assert data["recipe"]["several"] == 3
    label = data["recipe"]["quality_label"]
    assert (label["version"], label["licence"]) == (LocalSimilarity.version, LocalSimilarity.licence)
    assert {p["name"]: len(p["sha256"]) for p in data["photographs"]}.keys() == {
        "a.left.png", "a.right.png", "b/a.1.png", "b/a.2.png", "broken.jpg", "c.png", "d.png",
    }  # fmt: skip
    assert set(said["seconds"]) == {"decoding", "regions", "distorting", "labelling", "encoding"}
    assert str(photographs) not in (folder / "data.json").read_text()


def test_scenes_keep_to_one_split(mixed, whole):
    for folder, _ in (mixed, whole):
        splits = {}
        for record in records(folder):
            splits.setdefault(record.source, set()).add(record.split)
        assert {"a", "b/a", "c", "d"} == set(splits)
        assert all(len(s) == 1 for s in splits.values())
    assert min(mixed[1]["counts"][s] for s in SPLITS) > 0
    assert whole[1]["counts"]["val"] == 0


def test_as_in_the_paper_each_photograph_takes_each_type_and_setting(photographs, whole):
    folder, said = whole
    found = records(folder)
    assert said["counts"]["images"] == len(found) == 6 * 20
    noise = DISTORTIONS.build({"plugin": "noise"})
    first = found[:20]
    assert [r.id for r in first] == [f"noise_{s}/000000" for s in range(20)]
    clean = load_image(folder / first[0].reference)
    masks = [[r.counts for r in record.regions] for record in first]
    assert all(m == masks[0] for m in masks)
    names = [r.id.rpartition("/")[2].partition("-")[0] for r in first[0].regions]
    assert set(names) == {"object", "component"}
    for setting in (3, 16):
        record = first[setting]
        seed = int(np.random.default_rng([0, 0, 0, setting]).integers(2**31))
        np.testing.assert_array_equal(record.pixels(), noise(clean, setting, seed))
        decoded = np.stack([rle.decode({"size": [record.height, record.width], "counts": r.counts}) for r in record.regions])
        quality, impact = LocalSimilarity().label(record.pixels(), clean, decoded)
        np.testing.assert_allclose([r.quality for r in record.regions], quality, atol=1e-6)
        np.testing.assert_allclose([r.importance for r in record.regions], np.sqrt(np.clip(impact / 0.25, 0, 1)), atol=1e-3)
        expected = [(("noise", Distortion.severity(setting)),) if q <= 0.97 else () for q in quality]
        assert [r.distortions for r in record.regions] == expected


def test_mixed_images_carry_several_types_with_their_severities(mixed):
    found = [r.distortions for record in records(mixed[0]) for r in record.regions]
    assert {len(d) for d in found} == {0, 1, 2, 3}
    order = ("blur", "exposure", "noise", "colorfulness", "contrast", "compression")
    for distortions in found:
        kinds = [kind for kind, _ in distortions]
        assert len(set(kinds)) == len(kinds)
        stages = [DISTORTIONS.get(k).stage for k in kinds]
        assert stages == sorted(stages, key=("optics", "exposure", "sensor", "development", "file").index)
    assert {kind for d in found for kind, _ in d} == set(order)


def test_a_photograph_that_turns_bad_moves_nothing_else(photographs, mixed, tmp_path):
    mended = tmp_path / "photographs"
    shutil.copytree(photographs, mended)
    PIL.Image.fromarray(dead_leaves(50, np.random.default_rng(9))).save(mended / "broken.jpg")
    job(mended, tmp_path / "data", **MIXED).run()
    made = {r.id: r for r in records(tmp_path / "data")}
    before = {r.id: r for r in records(mixed[0])}
    assert len(made) == 37
    assert {k: made[k] for k in before} == before


@pytest.mark.parametrize("options", [MIXED, WHOLE], ids=["mixed", "whole"])
def test_killed_at_every_moment_it_ends_in_the_same_bytes(photographs, mixed, whole, tmp_path, options):
    """SIGKILL before and after each file gets its name: the plan, references, parts, receipts, the manifest. A part that is there stays."""
    expected = files((mixed if options is MIXED else whole)[0])
    out, context = tmp_path / "data", multiprocessing.get_context("fork")
    killed, kept = 0, dict[str, tuple[int, int]]()
    for _, moment in zip(range(60), itertools.cycle(range(1, 5))):
        process = context.Process(target=killed_at, args=(moment, killed % 2 == 1, photographs, out, options))
        process.start()
        process.join(300)
        kept = stamps(out) | kept
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        killed += 1
    assert process.exitcode == 0
    assert killed > 4
    assert stamps(out) == kept
    assert files(out) == expected


def stamps(out: Path) -> dict[str, tuple[int, int]]:
    """Which files the parts are, and when each was written: what is made again is another one."""
    return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in out.glob("part-*.parquet")}


def killed_at(moment: int, after: bool, photographs: Path, out: Path, options: dict) -> None:
    """In a process of its own: makes the data, and is killed before or after the `moment`-th file gets its name."""
    replace, count = Path.replace, itertools.count(1)

    def counted(self, target):
        last = next(count) == moment
        if last and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(self, target)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)

    Path.replace = counted
    job(photographs, out, **options).run()


def test_what_is_finished_is_not_made_again(photographs, mixed, tmp_path, monkeypatch):
    shutil.copytree(mixed[0], tmp_path / "data")
    monkeypatch.setattr(synthesis_shards.Shards, "make", lambda *a: pytest.fail("made again"))
    again = job(photographs, tmp_path / "data", **MIXED).run()
    assert again == {**mixed[1], "seconds": {}}


def test_only_the_missing_shard_is_made(photographs, mixed, tmp_path):
    shutil.copytree(mixed[0], tmp_path / "data")
    (tmp_path / "data" / ".job" / "000001.json").unlink()
    (tmp_path / "data" / "data.json").unlink()
    times = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "data").glob("part-*")}
    job(photographs, tmp_path / "data", **MIXED).run()
    changed = [p.name for p in (tmp_path / "data").glob("part-*") if p.stat().st_mtime_ns != times[p.name]]
    assert changed == ["part-000001.parquet"]
    assert files(tmp_path / "data") == files(mixed[0])


def test_a_bad_photograph_and_files_that_are_none_are_said_while_data_are_made(photographs, tmp_path, capsys):
    shutil.copytree(photographs, tmp_path / "photographs")
    for name in ("1.HEIC", "b/2.heic", "notes", ".hidden"):
        (tmp_path / "photographs" / name).write_bytes(b"")
    job(tmp_path / "photographs", tmp_path / "data", **MIXED).run()
    said = capsys.readouterr().out
    assert said.count("skipped broken.jpg (5 images): image broken.jpg cannot be decoded") == 1
    assert "not looked at, being no photographs by their names: 2 .heic, 1 without a suffix\n" in said


SHARED = ("mixed", "clean", "regions", "min_area", "visible", "full_impact", "several")  # options of quickstart's data and of this job


@pytest.mark.parametrize("several", [1, 3])
def test_quickstarts_samples_are_what_this_job_makes_of_their_clean_squares(tmp_path, monkeypatch, several):
    """Its clean squares are its own (crops, looks, dead leaves), and so is what it has drawn for these. From there on a sample is a row of
    this job, bit by bit."""
    given = [f"data.several={several}", "data.cache=''", "data.workers=0"]
    quickstart = DATASETS.build(load_config("quickstart", ["name=run", *given]).data)
    clean = []  # of each sample the square, and the generator after it
    reference = Photographs._reference

    def noted(self, split, rng):
        found = reference(self, split, rng)
        clean.append((found[1], copy.deepcopy(rng)))
        return found

    monkeypatch.setattr(Photographs, "_reference", noted)
    expected = [quickstart.make(split, i) for split in SPLITS for i in range(3)]
    assert len(clean) == len(expected)  # no square was without a region that is large enough
    (tmp_path / "squares").mkdir()
    for i, (square, _) in enumerate(clean):
        PIL.Image.fromarray(square).save(tmp_path / "squares" / f"{i}.png")
    monkeypatch.setattr(synthesis_shards.Shards, "_generator", lambda self, item: clean[item][1])
    recipe = {name: getattr(quickstart.recipe, name) for name in SHARED}
    job(tmp_path / "squares", tmp_path / "data", mode="mixed", size=quickstart.size, val=0, test=0, **recipe).run()
    for (pixels, ours), theirs in zip(expected, records(tmp_path / "data"), strict=True):
        assert theirs.png == encode_png(pixels)
        assert [dataclasses.replace(r, id="") for r in theirs.regions] == [dataclasses.replace(r, id="") for r in ours.regions]
    assert max(len(r.distortions) for _, ours in expected for r in ours.regions) == several


def test_a_part_that_was_deleted_is_made_again(photographs, mixed, tmp_path):
    out = tmp_path / "data"
    shutil.copytree(mixed[0], out)
    (out / "part-000001.parquet").unlink()
    job(photographs, out, **MIXED).run()
    assert files(out) == files(mixed[0])


def test_two_nodes_of_a_ray_cluster_make_the_same_bytes(photographs, mixed, tmp_path, ray_cluster):
    """Each has a process that has made a shard of another folder, so that none has made everything when the other has just started."""
    nodes = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    assert len(nodes) == 2
    other = job(photographs, tmp_path / "other", **MIXED)
    other.run()
    ready = ray.remote(num_cpus=1)(make_held)
    on = [ready.options(scheduling_strategy=NodeAffinitySchedulingStrategy(n, soft=False)) for n in nodes]
    ray.get([each.remote(synthesis_shards.Shards(other, other._plan()), 0) for each in on])
    made = job(photographs, tmp_path / "data", "ray", **MIXED)
    made.run()
    assert set(made.engine.made_on) == nodes
    assert made.engine.made_on.total() == len(stamps(tmp_path / "data")) == 3
    assert files(tmp_path / "data") == files(mixed[0])


@pytest.mark.parametrize("moment", [".part-*", "part-*.parquet"], ids=["while the first part is written", "when it is there"])
def test_a_worker_process_that_is_killed_costs_its_own_shards_only(photographs, mixed, tmp_path, moment):
    """One of two: the job ends and says so; given again it finishes, and leaves what was there as it is."""
    out = tmp_path / "data"
    killer = threading.Thread(target=kill_a_worker, args=(out, moment))
    killer.start()
    with pytest.raises(EngineError, match=r"one of 2 processes was killed, .*what is finished is kept, give the same line again"):
        configured(Synthesis, {**MIXED, "engine": {"plugin": "processes", "workers": 2}}, "synthesize")(photographs, out).run()
    killer.join()
    kept = stamps(out)
    assert len(kept) < 3
    assert not (out / "data.json").exists()
    job(photographs, out, "processes", **MIXED).run()
    assert kept.items() <= stamps(out).items()
    assert files(out) == files(mixed[0])


def kill_a_worker(out: Path, moment: str) -> None:
    """As soon as there is such a file."""
    until(lambda: list(out.glob(moment)), pause=0.001)
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)


@pytest.mark.parametrize("moment", ["plan.json", "part-*.parquet"])
def test_processes_killed_with_their_parent_make_the_same_bytes(photographs, mixed, tmp_path, root, moment):
    """Two processes: their parent is killed when there is such a file, and they end; then the job is finished."""
    out = tmp_path / "data"
    code = (
        "from pathlib import Path; from components.registry import configured; from datamodules.synthesis_job import Synthesis; "
        f"options = {{**{MIXED!r}, 'engine': {{'plugin': 'processes', 'workers': 2}}}}; "
        f"configured(Synthesis, options, 'test')(Path({str(photographs)!r}), Path({str(out)!r})).run()"
    )
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([sys.executable, "-c", code], cwd=root, start_new_session=True, **quiet)
    until(lambda: list(out.glob(moment)))
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    until(lambda: not alive(process.pid))
    kept = stamps(out)
    assert len(kept) < 3
    job(photographs, out, "processes", **MIXED).run()
    assert kept.items() <= stamps(out).items()
    assert files(out) == files(mixed[0])


def until(true, seconds: float = 60, pause: float = 0.02) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "timed out"
        time.sleep(pause)


def alive(group: int) -> bool:
    """Whether a process of the group still runs; one that ended and waits to be noticed does not."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            return True
    return False


def test_segment_anything_gives_objects_and_components(photographs, tmp_path):
    one = tmp_path / "photographs"
    one.mkdir()
    shutil.copy(photographs / "c.png", one)
    sam = {"plugin": "sam", **MASK_ENCODERS.get("sam").tiny()}
    options = {**WHOLE, "val": 0, "test": 0, "mask_encoder": sam, "min_area": 0.0, "components": 3}
    said = job(one, tmp_path / "data", **options).run()
    assert said["recipe"]["mask_encoder"]["model_type"] == "tiny"
    names = {r.id.split("/")[-1].partition("-")[0] for record in records(tmp_path / "data") for r in record.regions}
    assert names == {"object", "component"}


def test_images_beside_the_table(photographs, mixed, tmp_path):
    job(photographs, tmp_path / "data", **MIXED, store="beside", references=False).run()
    embedded = records(mixed[0])
    beside = records(tmp_path / "data")
    assert [r.id for r in beside] == [r.id for r in embedded]
    for a, b in zip(beside, embedded, strict=True):
        assert (a.png, b.path, a.reference) == (b"", "", "")
        assert (tmp_path / "data" / a.path).read_bytes() == b.png
        assert a.hash == b.hash
    assert not (tmp_path / "data" / "references").exists()


def test_an_image_beside_the_table_or_a_reference_that_was_deleted_is_made_again(photographs, tmp_path):
    """By the same line; nothing else is touched."""
    out, options = tmp_path / "data", {**MIXED, "images": 6, "store": "beside"}
    job(photographs, out, **options).run()
    made = files(out)
    for name in ("images/000/000003.png", "references/000000.png"):
        (out / name).unlink()
        job(photographs, out, **options).run()
        assert files(out) == made


@pytest.mark.parametrize("options", [MIXED, WHOLE], ids=["mixed", "whole"])
def test_raw_photographs_are_distorted_in_their_development(tmp_path, options):
    folder = tmp_path / "photographs"
    folder.mkdir()
    light = (0.5 * (dead_leaves(48, np.random.default_rng(0)) / 255.0) ** 3).astype(np.float32)
    write_dng(folder / "a.dng", light)
    chosen = {**options, "distortions": ["exposure"], "val": 0, "test": 0, "size": 0, "seed": 0}
    if options is MIXED:
        chosen |= {"images": 4, "mixed": 0, "clean": 0, "several": 1}
    said = job(folder, tmp_path / "data", **chosen).run()
    assert said["recipe"]["raw"] == json.loads(json.dumps({**raw.describe(), "developed": ["exposure"]}))
    developed = [DISTORTIONS.build({"plugin": "exposure"}).developed(raw.develop(folder / "a.dng"), s).tobytes() for s in range(20)]
    made = [r.pixels().tobytes() for r in records(tmp_path / "data")]
    assert made == developed if options is WHOLE else set(made) <= set(developed)
    afterwards = DISTORTIONS.build({"plugin": "exposure"})(load_image(tmp_path / "data" / "references" / "000000.png"), 16)
    assert afterwards.tobytes() not in made


def test_the_check_of_data_finds_nothing(mixed, whole, photographs, tmp_path):
    job(photographs, tmp_path / "beside", **WHOLE, store="beside").run()
    for folder in (mixed[0], whole[0], tmp_path / "beside"):
        assert prepare.main(["validate", str(folder), "--images"])["problems"] == []


def test_it_is_finished_with_the_same_options_only(photographs, mixed, tmp_path):
    shutil.copytree(mixed[0], tmp_path / "data")
    with pytest.raises(ConfigError, match="was begun with seed=5, now it is 4: continue with the same, or begin in another folder"):
        job(photographs, tmp_path / "data", **{**MIXED, "seed": 4}).run()


@pytest.mark.parametrize("change", ["gone", "new", "longer"])
def test_it_is_finished_with_the_same_photographs_only(photographs, mixed, tmp_path, change):
    shutil.copytree(mixed[0], tmp_path / "data")
    mine = tmp_path / "photographs"
    shutil.copytree(photographs, mine)
    path = mine / ("new.png" if change == "new" else "d.png")
    path.unlink() if change == "gone" else path.open("ab").write(b"more")
    with pytest.raises(ConfigError, match=rf"1 photograph\(s\) in .* came, went or changed .*first: {path.name}"):
        job(mine, tmp_path / "data", **MIXED).run()


def test_a_photograph_that_changes_in_between_stops_the_job(photographs, mixed, tmp_path):
    shutil.copytree(mixed[0], tmp_path / "data")
    (tmp_path / "data" / ".job" / "000000.json").unlink()
    mine = tmp_path / "photographs"
    shutil.copytree(photographs, mine)
    content = bytearray((mine / "a.left.png").read_bytes())
    content[-20] ^= 1
    (mine / "a.left.png").write_bytes(content)
    with pytest.raises(ChangedError, match=r"a\.left\.png has changed or gone since this data was begun"):
        job(mine, tmp_path / "data", **MIXED).run()


@pytest.mark.parametrize("out", [".", "inside", ".."])
def test_photographs_are_not_written_over(photographs, out):
    with pytest.raises(ConfigError, match="is, holds or lies in the folder of photographs"):
        job(photographs, photographs / out, **MIXED).run()


def test_a_folder_of_something_else_is_left_alone(photographs, tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ConfigError, match="holds something else than data that was begun here"):
        job(photographs, tmp_path, **MIXED).run()
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_regions_that_are_nowhere_large_enough_are_reported(photographs, tmp_path):
    said = job(photographs, tmp_path / "data", **{**WHOLE, "min_area": 0.999, "objects": 0}).run()
    assert said["counts"]["images"] == 0
    assert {s["why"] for s in said["skipped"][:1]} == {
        "the mask encoder finds no region in it that is large enough: lower min_area, or take another encoder"
    }
    said = job(photographs, tmp_path / "more", **{**MIXED, "min_area": 0.999}).run()
    assert "no region covers min_area=0.999 of the image" in {s["why"] for s in said["skipped"]}


def test_a_folder_without_photographs(tmp_path):
    with pytest.raises(ImageError, match="does not exist: check the path"):
        job(tmp_path / "nowhere", tmp_path / "data", **MIXED).run()
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": -1}, "images: a number of images, 0 for one of each photograph; got -1"),
        ({"size": 8}, "size: a number of pixels, at least 32, or 0"),
        ({"distortions": []}, "distortions: one type at least"),
        ({"objects": 0, "components": 0, "mode": "seagull_100w"}, "objects and components: numbers of regions, one at least"),
        ({"val": 0.6, "test": 0.5}, "val and test: shares that leave some to train"),
        ({"mode": "seagull_100w"}, "images=37 is not for mode=seagull_100w, whose own options are objects, components: change the mode"),
        ({"components": 3}, "components=3 is not for mode=mixed, whose own options are images, mixed, clean, regions, several"),
        ({"mode": "seagul"}, "mode: got 'seagul', expected"),
        ({"mask_encoder": {"plugin": "given"}}, "Given cannot propose regions by itself: take superpixel or sam"),
        ({"several": 0}, "several is at least 1, got 0"),
        ({"imagse": 3}, "unknown key 'imagse'. Did you mean 'images'"),
    ],
)
def test_mistakes_are_found_before_anything_is_read(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        job(tmp_path / "nowhere", tmp_path / "data", **{**MIXED, **options})
