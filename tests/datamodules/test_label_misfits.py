"""A label file that changes its make behind its first records: the file, the key, the image, the value and the remedy are told."""

from __future__ import annotations

import json
import re

import duckdb
import pytest

from datamodules import label_mapping, seagull_100w
from datamodules.label_mapping import load_mapping
from datamodules.seagull_100w import Indexer
from tests.datamodules.seagull_100w_files import write_labels

SHARES = (0.6, 0.2, 0.2)
SCORES, MASKS = "scores", "mask-based-rois"
REMEDY = "correct it in the file (null where it is unknown), or name another key in a mapping (--mapping)"


def rated(value):
    return lambda regions: regions[1].update(quality_score=value)


def cut_out(**change):
    return lambda regions: regions[1]["segmentation"].update(change)


def path_of(folder, name):
    return folder / "Labels" / f"SEAGULL-100w_{name}.json"


def refused(folder, mapping=None):
    with pytest.raises(ValueError) as raised:
        Indexer(folder, folder / "out", mapping or load_mapping(None), SHARES, 0).run()
    assert "chunk.json" not in str(raised.value)
    assert "ignore_errors" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        (SCORES, rated("high"), "scores.quality 'quality_score' {} is \"high\", where a number is expected"),
        (SCORES, rated([0.5]), "scores.quality 'quality_score' {} is [0.5], where a number is expected"),
        (SCORES, rated({"of": "x" * 99}), f'scores.quality \'quality_score\' {{}} is {{{{"of": "{"x" * 52}..., where a number is expected'),
        (SCORES, lambda regions: regions.append(7), "scores.region 'id' {} is 7, where a mapping with 'id' is expected"),
        (MASKS, cut_out(size="24x33"), "masks.size 'segmentation.size' {} is \"24x33\", where a list of two numbers is expected"),
        (MASKS, cut_out(size=["24", "wide"]), 'masks.size \'segmentation.size\' {} is ["24", "wide"], where a list of two numbers is'),
        (
            MASKS,
            lambda regions: regions[1].update(segmentation="mask.png"),
            "masks.size 'segmentation.size' {} is \"mask.png\", where a mapping with 'size' is expected",
        ),
    ],
)
@pytest.mark.parametrize("by_name", [False, True])
def test_a_value_of_another_make_is_told(tmp_path, monkeypatch, name, change, told, by_name):
    """In a list of records and in a mapping of names to lists of regions; in a piece that does not begin the file."""
    monkeypatch.setattr(seagull_100w, "CHUNK", 1000)
    write_labels(tmp_path, 6, mapping=by_name)
    path, mapping = path_of(tmp_path, name), load_mapping(None)
    if by_name:
        for where in ("masks", "scores"):
            mapping[where] |= {"image": "$key", "regions": "$self"}
    records = json.loads(path.read_text())
    image, regions = list(records.items())[4] if by_name else (records[4]["id"], records[4]["annotations"])
    change(regions)
    path.write_text(json.dumps(records))
    said = refused(tmp_path, mapping)
    assert told.format(f"of the image '{image}'") in said
    assert said.endswith(REMEDY)
    start, end = (
        int(n.replace(",", "")) for n in re.match(rf"{re.escape(str(path))}, between byte ([\d,]+) and ([\d,]+): ", said).groups()
    )
    assert 1 < start < path.read_bytes().index(f'"{image}"'.encode()) + 1 < end < path.stat().st_size


@pytest.mark.parametrize(("name", "where"), [(SCORES, "scores"), (MASKS, "masks")])
@pytest.mark.parametrize(("regions", "got"), [("none", '"none"'), ({"1": None}, '{"1": null}')])
def test_regions_of_another_make_are_told(tmp_path, name, where, regions, got):
    write_labels(tmp_path, 2)
    path = path_of(tmp_path, name)
    records = json.loads(path.read_text())
    records[1]["annotations"] = regions
    path.write_text(json.dumps(records))
    said = refused(tmp_path)
    assert f"{where}.regions 'annotations' of the image '{records[1]['id']}' is {got}, where a list of regions, as in the first" in said
    assert said.endswith(REMEDY)


def test_a_record_that_is_no_mapping_is_told(tmp_path):
    write_labels(tmp_path, 2)
    path = path_of(tmp_path, SCORES)
    path.write_text(json.dumps([*json.loads(path.read_text()), [3]]))
    assert "scores.regions 'annotations' of the image None is [3], where a mapping that holds it is expected" in refused(tmp_path)


@pytest.mark.parametrize("of", [0, 1, -1])
def test_a_record_that_is_no_json_is_told(tmp_path, monkeypatch, of):
    """Among the first, where the keys are looked for, and behind them."""
    monkeypatch.setattr(label_mapping, "FIRST", 100)
    write_labels(tmp_path, 2)
    path = path_of(tmp_path, SCORES)
    records = [json.dumps(r) for r in json.loads(path.read_text())]
    records[of] = records[of].replace('"id": 1', '"id": one', 1)
    path.write_text(f"[{', '.join(records)}]")
    told = rf"^{re.escape(str(path))}, between byte 1 and [\d,]+, is no JSON \(Expecting value: .*\): it is damaged .*; fetch it again$"
    assert re.match(told, refused(tmp_path))


def test_what_is_known_to_the_engine_alone_is_told_with_the_file(tmp_path):
    """A folder whose number is none of 32 bits."""
    write_labels(tmp_path, 2)
    path = path_of(tmp_path, SCORES)
    path.write_text(path.read_text().replace("Blur_1/", "Blur_99999999999/", 1))
    said = refused(tmp_path)
    assert re.match(rf"{re.escape(str(path))}, between byte 1 and [\d,]+: Conversion Error: Could not convert string '99999999999'", said)
    assert said.endswith("check the label file, and scores.name in the mapping")


def test_a_label_that_is_unknown_or_written_as_text_is_none_of_these(tmp_path):
    write_labels(tmp_path, 2)
    path = path_of(tmp_path, SCORES)
    records = json.loads(path.read_text())
    records[1]["annotations"][0]["quality_score"], records[1]["annotations"][1]["quality_score"] = "0.5", None
    path.write_text(json.dumps(records))
    counts = Indexer(tmp_path, tmp_path / "out", load_mapping(None), SHARES, 0).run()["counts"]
    assert counts["scores without quality_score"] == 1


def test_want_of_room_is_no_fault_of_the_file(tmp_path, monkeypatch):
    write_labels(tmp_path, 2)

    def full(*given):
        raise duckdb.IOException("No space left on device")

    monkeypatch.setattr(Indexer, "_write_masks", full)
    with pytest.raises(duckdb.IOException, match="No space left"):
        Indexer(tmp_path, tmp_path / "out", load_mapping(None), SHARES, 0).run()
