"""The run folder."""

import pandas as pd
import pytest

from lightning_modules.runs import Run, RunError, write_json, write_text

CONFIG = "name: a\nseed: 1\nmodel: {}\ndata: {}\ntrainer: {}\noptim: {}\n"
OTHER = CONFIG.replace("seed: 1", "seed: 2")


def test_a_new_run_starts_from_nothing(tmp_path):
    run = Run(tmp_path / "a")
    assert run.begin(CONFIG) is None
    assert run.config.read_text() == CONFIG


def test_an_interrupted_run_resumes(tmp_path):
    run = Run(tmp_path / "a")
    run.begin(CONFIG)
    run.checkpoint.parent.mkdir()
    run.checkpoint.touch()
    assert run.begin(CONFIG) == run.checkpoint
    assert run.require_checkpoint() == run.checkpoint


def test_an_interrupted_run_goes_on_elsewhere(tmp_path):
    """Where it runs may change while it is under way, and nothing else; a finished run is what its configuration says."""
    placed = CONFIG.replace("trainer: {}", "trainer: {steps: 4, devices: 1, strategy: auto}")
    elsewhere = placed.replace("devices: 1, strategy: auto", "devices: 8, strategy: fsdp")
    run = Run(tmp_path / "a")
    run.begin(placed)
    run.checkpoint.parent.mkdir()
    run.checkpoint.touch()
    assert run.begin(elsewhere) == run.checkpoint
    assert run.config.read_text() == elsewhere
    with pytest.raises(
        RunError, match=r"another configuration \(there '  steps: 4', here '  steps: 5'\)|there 'steps: 4', here 'steps: 5'"
    ):
        run.begin(placed.replace("steps: 4", "steps: 5"))
    write_json(run.metrics, {})
    with pytest.raises(RunError, match=r"another configuration .*devices: 8"):
        run.begin(placed)


def test_a_finished_run_is_made_again(tmp_path):
    run = Run(tmp_path / "a")
    run.begin(CONFIG)
    run.checkpoint.parent.mkdir()
    run.checkpoint.touch()
    write_json(run.metrics, {"n": 1})
    assert run.begin(CONFIG) is None
    assert not run.metrics.exists()


def test_an_attempt_without_a_checkpoint_does_not_take_the_name(tmp_path):
    run = Run(tmp_path / "a")
    run.begin(CONFIG)
    (run.folder / "logs").mkdir()
    assert run.begin(OTHER) is None
    assert run.config.read_text() == OTHER
    assert not (run.folder / "logs").exists()


def test_making_a_run_again_leaves_what_is_not_the_runs(tmp_path):
    run = Run(tmp_path / "a")
    run.begin(CONFIG)
    write_json(run.metrics, {"n": 1})
    (run.folder / "notes.txt").write_text("mine")
    run.begin(CONFIG)
    assert not run.metrics.exists()
    assert (run.folder / "notes.txt").read_text() == "mine"


def test_checking_changes_nothing(tmp_path):
    run = Run(tmp_path / "a")
    run.check(CONFIG)
    assert not run.folder.exists()
    run.begin(CONFIG)
    write_json(run.metrics, {"n": 1})
    run.check(CONFIG)
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
    run.begin(CONFIG)
    write_json(run.metrics, {"n": 1})
    with pytest.raises(RunError, match=r"another configuration \(there 'seed: 1', here 'seed: 2'\).*name="):
        run.begin(OTHER)
    assert run.metrics.exists()


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"is not a run: it has no config.yaml"):
        Run(tmp_path).require_checkpoint()
    run = Run(tmp_path / "a")
    run.begin(CONFIG)
    with pytest.raises(RunError, match=r"has no checkpoints/last.ckpt: its training has not got that far"):
        run.require_checkpoint()


def test_writing_is_atomic(tmp_path):
    write_text(tmp_path / "x", "old")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x", {"n": float("nan")})
    assert (tmp_path / "x").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_folder_that_is_no_run_is_left_alone(tmp_path):
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(RunError, match=r"is not a run .* and is not empty"):
        Run(tmp_path).begin(CONFIG)
    assert (tmp_path / "metrics.json").exists()


@pytest.mark.parametrize("config", ["steps: 5\n", "a: [", "just text"])
def test_another_projects_folder_is_left_alone(tmp_path, config):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.yaml").write_text(config)
    (tmp_path / "checkpoints" / "epoch=9.ckpt").touch()
    with pytest.raises(RunError, match=r"holds a config.yaml that is not this project's: give this run another name"):
        Run(tmp_path).begin(CONFIG)
    assert (tmp_path / "checkpoints" / "epoch=9.ckpt").exists()


def test_a_run_goes_on_with_the_data_it_was_begun_on_alone(tmp_path):
    run = Run(tmp_path / "a")
    run.begin(CONFIG)
    run.checkpoint.parent.mkdir()
    run.checkpoint.touch()
    write_json(run.record, {"data": {"fingerprint": "a", "counts": [1, 2]}})
    run.check_data({"fingerprint": "a", "counts": (1, 2)})
    with pytest.raises(RunError, match=r"was begun on other data \(fingerprint differ"):
        run.check_data({"fingerprint": "b", "counts": (1, 2)})
    write_json(run.metrics, {})
    run.check_data({"fingerprint": "b"})  # a finished run is made again from the start
