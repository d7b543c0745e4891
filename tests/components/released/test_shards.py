"""Folders of weights: in one file or several, pickled or not, whole or not; nothing but tensors is ever unpickled."""

import json
import os

import pytest
import torch
from safetensors.torch import save_file

from components.released.shards import CheckpointError, Shards, open_tensors

STATE = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2], dtype=torch.int8)}


class Runs:
    """An object whose unpickling would run a command."""

    def __reduce__(self):
        return os.system, ("touch should-not-be-there",)


def same(folder):
    found = Shards(folder)
    assert set(found) == set(STATE)
    assert all(torch.equal(found[k], v) for k, v in STATE.items())
    return found


def test_one_pickled_file(tmp_path):
    torch.save(STATE, tmp_path / "pytorch_model.bin")
    assert same(tmp_path).place == dict.fromkeys(STATE, "pytorch_model.bin")


def test_one_safetensors_file(tmp_path):
    save_file(STATE, tmp_path / "model.safetensors")
    same(tmp_path)


def test_several_with_an_index(tmp_path):
    for name, value in STATE.items():
        save_file({name: value}, tmp_path / f"{name}.safetensors")
    place = {name: f"{name}.safetensors" for name in STATE}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": place}))
    assert same(tmp_path).place == place


def test_a_missing_file_is_named(tmp_path):
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"a": "one.bin"}}))
    with pytest.raises(CheckpointError, match=r"one\.bin is missing: fetch it"):
        Shards(tmp_path)


def test_more_in_the_files_than_in_the_index(tmp_path):
    torch.save(STATE, tmp_path / "one.bin")
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"a": "one.bin"}}))
    with pytest.raises(CheckpointError, match=r"tensors 1 it does not name \(first: b\)"):
        Shards(tmp_path)


@pytest.mark.parametrize("text", ["[", "{}", '{"weight_map": 3}', "[1]"])
def test_an_index_that_is_none(tmp_path, text):
    (tmp_path / "pytorch_model.bin.index.json").write_text(text)
    with pytest.raises(CheckpointError, match="is not an index with a 'weight_map'"):
        Shards(tmp_path)


@pytest.mark.parametrize("file", ["../one.bin", "/one.bin", "a/one.bin", 3])
def test_an_index_that_leads_elsewhere(tmp_path, file):
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"a": file}}))
    with pytest.raises(CheckpointError, match=r"which is no file of its folder: it is not read"):
        Shards(tmp_path)


def test_a_folder_without_weights(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(CheckpointError, match=r"holds no weights: looked for pytorch_model\.bin or .*, found notes\.txt"):
        Shards(tmp_path)
    with pytest.raises(CheckpointError, match="is not a folder"):
        Shards(tmp_path / "nowhere")


def test_code_in_a_pickle_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Runs()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="holds more than tensors, and is not opened"):
        Shards(tmp_path)
    assert not (tmp_path / "should-not-be-there").exists()


@pytest.mark.parametrize("content", [[1], {"a": 1}, {"a": {"b": torch.zeros(1)}}, {1: torch.zeros(1)}])
def test_what_is_no_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "x.bin")
    with pytest.raises(CheckpointError, match="expected a mapping of names to tensors"):
        open_tensors(tmp_path / "x.bin")


def test_a_truncated_safetensors_file(tmp_path):
    save_file(STATE, tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors").write_bytes((tmp_path / "x.safetensors").read_bytes()[:-3])
    with pytest.raises(CheckpointError, match=r"x\.safetensors cannot be read .* truncated or damaged"):
        open_tensors(tmp_path / "x.safetensors")


def test_tensors_stay_on_the_disk(tmp_path, monkeypatch):
    """Files are mapped: what is not used is not read, and nothing but tensors is unpickled."""
    torch.save(STATE, tmp_path / "x.bin")
    asked, read = [], torch.load
    monkeypatch.setattr(torch, "load", lambda path, **options: asked.append(options) or read(path, **options))
    assert torch.equal(open_tensors(tmp_path / "x.bin")["a"], STATE["a"])
    assert asked == [{"map_location": "cpu", "mmap": True, "weights_only": True}]
