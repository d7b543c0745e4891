"""What a run records of itself."""

import json

import pytest
import torch

from lightning_modules import facts as module
from lightning_modules.facts import facts


def test_facts_can_be_written(tmp_path, root):
    found = facts(root, torch.device("cpu"))
    assert json.loads(json.dumps(found)) == found
    assert found["packages"]["torch"]
    assert facts(tmp_path, torch.device("cpu"))["git"] == "unknown"


def test_a_package_that_not_everyone_has_is_recorded_where_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "OTHERS", ("no-such-package", "a-measure"))
    (tmp_path / "a_measure-0.1.15.dist-info").mkdir()
    (tmp_path / "a_measure-0.1.15.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: a-measure\nVersion: 0.1.15\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = facts(tmp_path, torch.device("cpu"))["packages"]
    assert found["a-measure"] == "0.1.15"
    assert set(found) == {*module.PACKAGES, "a-measure"}


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("processor\t: 0\nmodel name\t: AMD EPYC 7763\nflags : a\n\nprocessor\t: 1\nmodel name\t: AMD EPYC 7763\n", "AMD EPYC 7763"),
        ("model name\t: Intel(R) Xeon(R) @ 2.20GHz\n", "Intel(R) Xeon(R) @ 2.20GHz"),
        ("processor : 0\nCPU implementer : 0x41\nCPU part : 0xd0c\n", "CPU implementer 0x41 CPU part 0xd0c"),
    ],
)
def test_two_processors_are_two_devices(tmp_path, told, name):
    (tmp_path / "cpuinfo").write_text(told)
    assert module._model(tmp_path / "cpuinfo") == name


@pytest.mark.parametrize(("known", "name"), [("arm", "arm"), ("", "CPU")])
def test_where_no_file_tells_the_processor_python_may(tmp_path, monkeypatch, known, name):
    monkeypatch.setattr(module.platform, "processor", lambda: known)
    assert module._model(tmp_path / "none") == name


def test_a_run_on_a_processor_says_which(root, monkeypatch):
    monkeypatch.setattr(module, "_model", lambda: "Fast 1")
    monkeypatch.setattr(module.torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(module.platform, "machine", lambda: "x86_64")
    assert facts(root, torch.device("cpu"))["device"] == "Fast 1 (x86_64), 2 threads"
