"""The run folder."""

import json

import pandas as pd
import pytest
import torch

from lightning_modules.runs import Run, RunError, facts, write_json, write_text


def test_a_new_run_starts_from_nothing(tmp_path):
    run = Run(tmp_path / "a")
    assert run.begin("x: 1\n") is None
    assert run.config.read_text() == "x: 1\n"


def test_an_interrupted_run_resumes(tmp_path):
    run = Run(tmp_path / "a")
    run.begin("x: 1\n")
    run.checkpoint.parent.mkdir()
    run.checkpoint.touch()
    assert run.begin("x: 1\n") == run.checkpoint
    assert run.require_checkpoint() == run.checkpoint


def test_a_finished_run_is_made_again(tmp_path):
    run = Run(tmp_path / "a")
    run.begin("x: 1\n")
    run.checkpoint.parent.mkdir()
    run.checkpoint.touch()
    write_json(run.metrics, {"n": 1})
    assert run.begin("x: 1\n") is None
    assert not run.metrics.exists()


def test_an_attempt_without_a_checkpoint_does_not_take_the_name(tmp_path):
    run = Run(tmp_path / "a")
    run.begin("x: 1\n")
    (run.folder / "logs").mkdir()
    assert run.begin("x: 2\n") is None
    assert run.config.read_text() == "x: 2\n"
    assert not (run.folder / "logs").exists()


def test_making_a_run_again_leaves_what_is_not_the_runs(tmp_path):
    run = Run(tmp_path / "a")
    run.begin("x: 1\n")
    write_json(run.metrics, {"n": 1})
    (run.folder / "notes.txt").write_text("mine")
    run.begin("x: 1\n")
    assert not run.metrics.exists()
    assert (run.folder / "notes.txt").read_text() == "mine"


def test_checking_changes_nothing(tmp_path):
    run = Run(tmp_path / "a")
    run.check("x: 1\n")
    assert not run.folder.exists()
    run.begin("x: 1\n")
    write_json(run.metrics, {"n": 1})
    run.check("x: 1\n")
    assert run.metrics.exists()


def test_the_curves_of_all_attempts_are_one(tmp_path):
    run = Run(tmp_path)
    assert run.curves() is None
    for attempt, rows in (("version_9", "10,3\n20,2\n30,9"), ("version_10", "20,2.5\n30,1")):
        (tmp_path / "logs" / "csv" / attempt).mkdir(parents=True)
        (tmp_path / "logs" / "csv" / attempt / "metrics.csv").write_text(f"step,train/loss\n{rows}\n")
    found = pd.read_csv(run.curves())
    assert found.to_numpy().tolist() == [[10, 3], [20, 2.5], [30, 1]]


def test_another_configuration_is_refused_and_loses_nothing(tmp_path):
    run = Run(tmp_path / "a")
    run.begin("x: 1\ny: 2\n")
    write_json(run.metrics, {"n": 1})
    with pytest.raises(RunError, match=r"another configuration \(there 'x: 1', here 'x: 3'\).*name="):
        run.begin("x: 3\ny: 2\n")
    assert run.metrics.exists()


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"is not a run: it has no config.yaml"):
        Run(tmp_path).require_checkpoint()
    run = Run(tmp_path / "a")
    run.begin("x: 1\n")
    with pytest.raises(RunError, match=r"has no checkpoints/last.ckpt: its training has not got that far"):
        run.require_checkpoint()


def test_writing_is_atomic(tmp_path):
    write_text(tmp_path / "x", "old")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x", {"n": float("nan")})
    assert (tmp_path / "x").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_facts_can_be_written(tmp_path, root):
    found = facts(root, torch.device("cpu"))
    assert json.loads(json.dumps(found)) == found
    assert found["packages"]["torch"]
    assert facts(tmp_path, torch.device("cpu"))["git"] == "unknown"


def test_a_folder_that_is_no_run_is_left_alone(tmp_path):
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(RunError, match=r"is not a run .* and is not empty"):
        Run(tmp_path).begin("x: 1\n")
    assert (tmp_path / "metrics.json").exists()
