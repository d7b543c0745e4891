"""Pickled states: read safely, renamed exactly."""

import pickle

import pytest
import torch

from components.released.shards import CheckpointError
from components.released.states import Names, read_state, read_wrapped

NAMES = Names({"ours.a.": "theirs.x.", "ours.b": "theirs.y"})
STATE = {"theirs.x.weight": torch.ones(2, 3), "theirs.y": torch.zeros(1)}


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model_state_dict"])
def test_a_state_is_read_flat_or_one_level_below(tmp_path, wrapper):
    torch.save(STATE if wrapper is None else {"epoch": 3, wrapper: STATE}, tmp_path / "a.pkl")
    found = read_state(tmp_path / "a.pkl")
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[k], v) for k, v in STATE.items())


class Evil:
    def __reduce__(self):
        return print, ("executed",)


def test_nothing_is_executed(tmp_path, capsys):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"a": Evil()}, protocol=2))
    torch.save({"a": Evil()}, tmp_path / "b.pkl")
    for name in ("a.pkl", "b.pkl"):
        with pytest.raises(CheckpointError, match="is no checkpoint of tensors alone, or is damaged"):
            read_state(tmp_path / name)
    assert "executed" not in capsys.readouterr().out


def test_what_is_no_state_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere.pkl is no file: give the file that the authors released"):
        read_state(tmp_path / "nowhere.pkl")
    torch.save({"epoch": 3}, tmp_path / "a.pkl")
    with pytest.raises(CheckpointError, match=r"a.pkl holds no mapping of names to tensors"):
        read_state(tmp_path / "a.pkl")


def test_names_go_there_and_back():
    brought = NAMES.bring(STATE, {"ours.a.weight": torch.empty(2, 3), "ours.b": torch.empty(1)}, "here")
    assert brought["ours.a.weight"] is STATE["theirs.x.weight"]
    assert [NAMES.to_ours(NAMES.to_released(name)) for name in brought] == list(brought)
    assert NAMES.to_ours("other") is None
    assert NAMES.to_released("other") is None


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"theirs.y": STATE["theirs.y"]}, r"1 missing \(first: theirs.x.weight\)"),
        ({**STATE, "more": STATE["theirs.y"]}, r"1 unknown \(first: more\)"),
        ({**STATE, "theirs.y": torch.ones(2)}, r"1 of another shape \(first: theirs.y \(2,\) instead of \(1,\)\)"),
    ],
)
def test_other_tensors_are_refused(found, message):
    with pytest.raises(CheckpointError, match=message):
        NAMES.bring(found, {"ours.a.weight": torch.empty(2, 3), "ours.b": torch.empty(1)}, "here")


def test_what_several_gpus_put_before_all_names_is_taken_away(tmp_path):
    torch.save({"state_dict": {"module.a": torch.ones(1), "module.b": torch.ones(1)}}, tmp_path / "all.pkl")
    torch.save({"module.a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "one.pkl")
    assert [(list(names), under) for names, under in (read_wrapped(tmp_path / "all.pkl"), read_wrapped(tmp_path / "one.pkl"))] == [
        (["a", "b"], "state_dict"),
        (["module.a", "b"], ""),
    ]
