"""What a run stands on is noted, and a run whose teacher was trained again is found."""

import hashlib
import json

import pytest

from lightning_modules.lineage import digest, note, outdated, stands_on
from lightning_modules.runs import RunError
from lightning_modules.variants import train_all


def text(name, **more):
    return json.dumps({"name": name, "model": {}, "data": {}, "trainer": {}, "optim": {}, **more})


@pytest.fixture
def configs(tmp_path):
    """A teacher, its student, one that begins with the student, and one that stands on nothing."""
    return {
        tmp_path / "teacher": text("teacher"),
        tmp_path / "student": text("student", distillation={"teacher": str(tmp_path / "teacher")}),
        tmp_path / "later": text("later", start_from=str(tmp_path / "student"), distillation={"teacher": ""}),
        tmp_path / "alone": text("alone"),
    }


def train(config, weights="first"):
    """Stands in for a training."""
    folder = config.parent
    (folder / "checkpoints").mkdir(exist_ok=True)
    (folder / "checkpoints" / "last.ckpt").write_text(weights)
    (folder / "run.json").write_text(json.dumps({"stands_on": note(json.loads(config.read_text()))}))
    (folder / "metrics.json").write_text("{}")
    return 0


def test_what_a_configuration_stands_on(configs, tmp_path):
    assert [stands_on(json.loads(config)) for config in configs.values()] == [
        [],
        [str(tmp_path / "teacher")],
        [str(tmp_path / "student")],
        [],
    ]


def test_weights_are_known_by_their_hash(tmp_path):
    assert digest(tmp_path) is None
    assert note({"start_from": str(tmp_path)}) == {}
    (tmp_path / "model.safetensors").write_text("x")
    assert note({"start_from": str(tmp_path)}) == {str(tmp_path): hashlib.sha256(b"x").hexdigest()}


def test_what_stands_on_a_run_that_was_trained_again_is_refused_before_anything_is_trained(configs, tmp_path):
    train_all(configs, train)
    assert outdated(configs) == {}
    seen = []
    train(tmp_path / "teacher" / "config.yaml", "second")
    with pytest.raises(
        RunError, match=r"student stands on \S+teacher, which was trained again later or is to be.*Remove \S+student, \S+later;"
    ):
        train_all(configs, seen.append)
    assert seen == []


def test_what_stands_on_a_run_that_is_missing_is_refused_and_trained_after_it(configs, tmp_path):
    train_all(configs, train)
    (tmp_path / "student" / "metrics.json").unlink()
    assert outdated(configs) == {tmp_path / "later": tmp_path / "student"}
    for name in ("checkpoints/last.ckpt", "metrics.json"):
        (tmp_path / "later" / name).unlink()
    assert train_all(configs, train) == {}
    assert outdated(configs) == {}


def test_a_run_that_was_measured_again_is_what_it_was(configs, tmp_path):
    train_all(configs, train)
    (tmp_path / "teacher" / "metrics.json").write_text('{"quality": {}}')
    assert outdated(configs) == {}


def test_a_run_that_notes_nothing_is_taken_as_it_is(configs, tmp_path):
    train_all(configs, train)
    (tmp_path / "student" / "run.json").write_text("{}")
    train(tmp_path / "teacher" / "config.yaml", "second")
    assert outdated(configs) == {}
