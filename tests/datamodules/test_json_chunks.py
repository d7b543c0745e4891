"""Chunks put together are the file, whatever their size, wherever reading begins again."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest

from datamodules import json_chunks
from datamodules.json_chunks import chunks, form_of

NASTY = ['"', "\\", '\\"', "\\\\", "}", "]{", '"}],', "ünï \U0001f98a", "", "\\" * 5 + '"', "a\nb"]


def records(count=14):
    rng = np.random.default_rng(0)
    for n in range(count):
        text = "".join(NASTY[i] for i in rng.integers(0, len(NASTY), rng.integers(0, 6)))
        yield {"id": f"{text}{n}", "rois": [{text: [n, [text, None]], "q": rng.random()} for _ in range(rng.integers(0, 4))]}


def read(path, size, start=None):
    start = form_of(path)[1] if start is None else start
    return list(chunks(path, start, size))


@pytest.mark.parametrize("block", [1, 7, 100, 10**6])
@pytest.mark.parametrize("size", [1, 300, 10**6])
@pytest.mark.parametrize("indent", [None, 2])
def test_chunks_are_the_file(tmp_path, monkeypatch, block, size, indent):
    monkeypatch.setattr(json_chunks, "BLOCK", block)
    listed = list(records())
    named = {r["id"]: r["rois"] for r in listed}
    for value, ascii_only in ((listed, True), (listed, False), (named, False)):
        path = tmp_path / "a.json"
        path.write_text(json.dumps(value, indent=indent, ensure_ascii=ascii_only), encoding="utf-8")
        found = read(path, size)
        together = [r for c in found for r in json.loads(c.records)]
        assert together == (value if isinstance(value, list) else [{"key": k, "value": v} for k, v in named.items()])
        assert [c.start for c in found[1:]] == [c.end for c in found[:-1]]
        middle = len(found) // 2
        assert read(path, size, found[middle].start) == found[middle:]


@pytest.mark.parametrize(("text", "form"), [("[]", "list"), ("{ }", "mapping"), ("\ufeff [\n]", "list")])
def test_nothing_in_it(tmp_path, text, form):
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    assert form_of(tmp_path / "a.json")[0] == form
    assert read(tmp_path / "a.json", 10) == []


@pytest.mark.parametrize("text", ['"a"', "", "3", '{"a"'[3:]])
def test_what_is_neither_a_list_nor_a_mapping(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match="does not hold a list or a mapping of records: it begins with"):
        read(tmp_path / "a.json", 10)


@pytest.mark.parametrize("text", ['[{"a": 1}, {"a"', '[{"a": 1}', '[{"a": 1}] more', '[{"a": "}', '{"a": {"b": 1}, "c": 3}'])
def test_a_file_that_was_not_fetched_whole(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"stops at byte \d+ with .*: it was not fetched whole, or holds more than records"):
        read(tmp_path / "a.json", 10)


@pytest.mark.parametrize(
    "text", ['[1, {"a": 1}]', '[{"a": 1} {"b": 2} x {"c": 3}]', '{"a": 1, "b": {"c": 3}}', '{{"a": 1}}', '["a": {"b": 1}]']
)
def test_what_stands_between_records(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"at byte \d+, where a (list|mapping) has a record"):
        read(tmp_path / "a.json", 10)


@pytest.mark.parametrize("whole", [True, False])
def test_records_below_a_key_are_refused_before_much_is_read(tmp_path, monkeypatch, whole):
    """A file that is one mapping of one list: memory stays that of a record, and no more than that is read."""
    monkeypatch.setattr(json_chunks, "BLOCK", 2**10)
    monkeypatch.setattr(json_chunks, "LARGEST", 2**13)
    path = tmp_path / "a.json"
    path.write_text('{"annotations": [' + ", ".join(['{"id": "Blur_0/1.png"}'] * 40_000) + ("]}" if whole else ""))
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"more than 8,192 bytes from byte 1 on: .*annotations.*name that in a mapping"):
        read(path, 10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < path.stat().st_size / 2


@pytest.mark.parametrize("block", [7, 10**6])
def test_a_record_too_long_is_refused_whatever_the_block(tmp_path, monkeypatch, block):
    monkeypatch.setattr(json_chunks, "BLOCK", block)
    monkeypatch.setattr(json_chunks, "LARGEST", 50)
    (tmp_path / "a.json").write_text(json.dumps([{"a": "x" * 20}, {"a": "x" * 60}]))
    with pytest.raises(ValueError, match=r"a record of more than 50 bytes from byte 3[02] on"):
        read(tmp_path / "a.json", 10)


@pytest.mark.parametrize("block", [7, 10**6])
@pytest.mark.parametrize("indent", [None, 2])
def test_records_below_keys(tmp_path, monkeypatch, block, indent):
    """What stands before and behind them is passed over, though it has the same words in it."""
    monkeypatch.setattr(json_chunks, "BLOCK", block)
    listed, path = list(records()), tmp_path / "a.json"
    named = {r["id"]: r["rois"] for r in listed}
    before = {"info": {"rois": [1], "said": 'a "rois" : ]}', "labels": "rois"}, "list": [[{"labels": {"rois": 0}}]], "n": 3}
    for value in (listed, named):
        path.write_text(json.dumps({**before, "labels": {"é": 1, "rois": value, "rest": [2]}, "licences": ["}"]}, indent=indent))
        start = form_of(path, "labels.rois")[1]
        found = list(chunks(path, start, 300, "labels.rois"))
        together = [r for c in found for r in json.loads(c.records)]
        assert together == (value if isinstance(value, list) else [{"key": k, "value": v} for k, v in named.items()])
        middle = len(found) // 2
        assert list(chunks(path, found[middle].start, 300, "labels.rois")) == found[middle:]


def test_keys_that_are_not_there_are_told(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"info": {"rois": []}, "images": 3}))
    with pytest.raises(ValueError, match=r"has no key 'rois' to read the records below; it has info, images"):
        form_of(tmp_path / "a.json", "rois")
    with pytest.raises(ValueError, match=r"does not hold a list or a mapping of records: it begins with b' 3}', byte 32"):
        form_of(tmp_path / "a.json", "images")
