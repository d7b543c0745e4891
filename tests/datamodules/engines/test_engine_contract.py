"""What every engine promises; plugins are found on disk, so that a new one is tested without an edit here."""

from __future__ import annotations

import pytest
import torch

from components.registry import ConfigError
from datamodules.engines.base import ENGINES
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
