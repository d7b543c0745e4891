"""What every engine promises; plugins are found on disk, so that a new one is tested without an edit here."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from components.registry import ConfigError
from datamodules.engines.base import ENGINES, EngineError, surroundings
from tests.datamodules.engines.counting import Counting


@pytest.fixture(scope="module", params=ENGINES.names())
def engine(request):
    if request.param == "ray":
        request.getfixturevalue("ray_cluster")
    return ENGINES.build({"plugin": request.param, **ENGINES.get(request.param).tiny()})


def test_the_plugins_are_on_disk():
    assert ENGINES.names() == ["inline", "processes", "ray"]


def test_each_shard_asked_for_is_made_once_on_one_thread_of_a_process_that_got_ready_once(engine, tmp_path):
    done = dict(engine.run(Counting(tmp_path), [0, 1, 3]))
    assert sorted(done) == [0, 1, 3]
    assert [done[s].images for s in (0, 1, 3)] == [1, 2, 4]
    assert done[3].skipped == ({"name": "3", "images": 1, "why": "odd"},)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {f"{s}.txt": f"{s * s}, ready 1, threads {{1}}" for s in (0, 1, 3)}


def test_this_process_keeps_its_threads(engine, tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    list(engine.run(Counting(tmp_path), [0]))
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_nothing_to_do(engine, tmp_path):
    assert list(engine.run(Counting(tmp_path), [])) == []


def test_an_error_of_a_shard_is_raised(engine, tmp_path):
    with pytest.raises(LookupError, match="shard 2 is broken"):
        list(engine.run(Counting(tmp_path, broken=2), range(5)))


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"plugin": "processes", "workers": -1}, "workers is a number of processes, 0 for one per core, got -1"),
        ({"plugin": "ray", "retries": -1}, "retries is at least 0 and ahead at least 1, got -1 and 2"),
        ({"plugin": "ray", "ahead": 0}, "retries is at least 0 and ahead at least 1, got 3 and 0"),
    ],
)
def test_options_out_of_range(node, message):
    with pytest.raises(ConfigError, match=message):
        ENGINES.build(node)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"plugin": "processes", "workers": 2}, "one of 2 processes was killed, .*what is finished is kept.* with fewer workers"),
        ({"plugin": "ray", "retries": 0}, "ray lost a shard more often than `retries` allows; what is finished is kept"),
    ],
    ids=lambda x: x["plugin"] if isinstance(x, dict) else "",
)
def test_a_process_that_is_lost(tmp_path, node, message, ray_cluster):
    with pytest.raises(EngineError, match=message):
        list(ENGINES.build(node).run(Counting(tmp_path, deadly=1), range(3)))


@pytest.mark.parametrize(("address", "expected"), [("", "local"), ("auto", "auto"), ("head:6379", "head:6379")])
def test_ray_is_started_or_joined_and_left_again(tmp_path, monkeypatch, address, expected):
    """With a stand-in for its start: the cluster of these tests is joined already."""
    called = []
    engine = ENGINES.build({"plugin": "ray", "address": address})
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", lambda **options: called.append(options["address"]))
    monkeypatch.setattr("ray.shutdown", lambda: called.append("left"))
    monkeypatch.setattr(type(engine), "_run", lambda self, work, shards: iter([]))
    assert list(engine.run(Counting(tmp_path), [0])) == []
    assert called == [expected, "left"]


def test_a_cluster_that_is_not_there(tmp_path, monkeypatch):
    def nobody(**options):
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", nobody)
    with pytest.raises(EngineError, match="ray: no cluster at address=auto: start one"):
        list(ENGINES.build({"plugin": "ray", "address": "auto"}).run(Counting(tmp_path), [0]))


def test_each_node_has_what_this_machine_has(tmp_path, ray_cluster):
    engine = ENGINES.build({"plugin": "ray"})
    work = Counting(tmp_path)
    work.libraries = ("numpy", "no-such-library")
    assert len(list(engine.run(work, range(4)))) == 4
    assert list(engine.found_on.values()) == [surroundings(work.libraries)] * 2
    assert surroundings(work.libraries)["no-such-library"] == "not installed"


@pytest.mark.parametrize("late", [False, True])
def test_a_node_with_other_libraries_makes_nothing(tmp_path, ray_cluster, monkeypatch, late):
    """Not even one that joins after all were asked. Here it is this machine that has others."""
    engine = ENGINES.build({"plugin": "ray"})
    work = Counting(tmp_path)
    work.libraries = ("numpy",)
    here = {**surroundings(["numpy"]), "numpy": "1.0"}
    monkeypatch.setattr("datamodules.engines.ray.surroundings", lambda libraries: here)
    if late:
        monkeypatch.setattr(type(engine), "_check_nodes", lambda *_: None)
    said = rf"ray: the node .* has numpy {np.__version__} \(here 1\.0\).* install the same on every node, or leave that node out"
    with pytest.raises(EngineError, match=said):
        list(engine.run(work, range(3)))
    assert not list(tmp_path.iterdir())


SCRIPT = """
import sys
sys.path.insert(0, root)
from pathlib import Path
from datamodules.engines.processes import Processes
from tests.datamodules.engines.counting import Counting
print("run")
done = Processes(workers=2).run(Counting(Path(data)), range(3))
print(sorted(shard for shard, _ in done), __file__ and "ends")
"""


def test_a_script_may_make_data_at_its_top_level(tmp_path, root):
    """It is not run again in the workers."""
    (tmp_path / "data").mkdir()
    (tmp_path / "script.py").write_text(f"root, data = {str(root)!r}, {str(tmp_path / 'data')!r}\n{SCRIPT}")
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout == "run\n[0, 1, 2] ends\n", done.stderr
