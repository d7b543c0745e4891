"""Shards on a Ray cluster, or on a Ray of this machine's cores."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from components.registry import ConfigError
from datamodules.engines.base import ENGINES, Engine, EngineError, Made, Work, make_held, surroundings

try:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
except ModuleNotFoundError as error:
    if error.name != "ray":
        raise
    raise ImportError("the engine 'ray' needs the package ray: pip install 'roi-iqa[ray]'") from error

_REMEDY = "Its shards could be other bytes: install the same on every node, or leave that node out of the cluster"


@ENGINES.register("ray")
class RayCluster(Engine):
    """One task per shard, dealt out over all nodes. The job's folders must lie under the same path on each, as on a shared file system.

    Where a node is lost, its shards are made again elsewhere: what is written twice is the same twice. Nodes with other libraries, or other
    code of this project, could write other bytes: each is asked before the first shard, one that joins later before its first, and such
    a node is refused.

    Args:
        address: of the cluster: "auto" for the one this machine belongs to, "host:port" for another; "" starts one on this machine's cores.
        retries: how often a shard is tried again whose process or node was lost. An error of the shard itself is not tried again.
        ahead: shards handed out per core of the cluster.

    Attributes:
        made_on: how many shards each node has made, by its id.
        found_on: what each node has (`surroundings`), by its id.

    Raises:
        ConfigError: `retries` below 0, or `ahead` below 1.
    """

    def __init__(self, *, address: str = "", retries: int = 3, ahead: int = 2) -> None:
        if retries < 0 or ahead < 1:
            raise ConfigError(f"ray: retries is at least 0 and ahead at least 1, got {retries} and {ahead}")
        self.address, self.retries, self.ahead = address, retries, ahead
        self.made_on: Counter[str] = Counter()
        self.found_on: dict[str, dict[str, str]] = {}

    def run(self, work: Work, shards: Sequence[int]) -> Iterator[tuple[int, Made]]:
        """A Ray that this process is connected to already is used, whatever the address. See the contract."""
        if not shards:
            return
        own = not ray.is_initialized()
        if own:
            self._connect()
        try:
            yield from self._run(work, shards)
        finally:
            if own:
                ray.shutdown()

    def _connect(self) -> None:
        try:
            if self.address:
                ray.init(address=self.address, log_to_driver=False)
            else:
                ray.init(address="local", log_to_driver=False, include_dashboard=False)
        except ConnectionError as error:
            raise EngineError(
                f"ray: no cluster at address={self.address}: start one (`ray start --head`), or leave the address out"
            ) from error

    def _run(self, work: Work, shards: Sequence[int]) -> Iterator[tuple[int, Made]]:
        here = surroundings(work.libraries)
        self._check_nodes(work.libraries, here)
        make = ray.remote(num_cpus=1, max_retries=self.retries, scheduling_strategy="SPREAD")(_make)
        job = ray.put(work)  # travels to each node once
        most = self.ahead * max(1, int(ray.cluster_resources().get("CPU", 1)))
        running: dict[Any, int] = {}
        waiting = iter(shards)
        while True:
            for shard in waiting:
                running[make.remote(job, shard, here)] = shard
                if len(running) >= most:
                    break
            if not running:
                break
            for done in ray.wait(list(running))[0]:
                made, node = _got(done)
                self.made_on[node] += 1
                yield running.pop(done), made

    def _check_nodes(self, libraries: Sequence[str], here: Mapping[str, str]) -> None:
        """Asks each node that makes shards. Raises EngineError where one has something else than this machine."""
        nodes = {node["NodeID"]: node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")}
        ask: Any = ray.remote(num_cpus=0, max_retries=self.retries)(_surroundings)
        asked = {n: ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(n, soft=False)).remote(libraries) for n in nodes}
        self.found_on = {node: _got(found) for node, found in asked.items()}
        wrong = [said for node, found in self.found_on.items() if (said := _differences(nodes[node], found, here))]
        if wrong:
            raise EngineError(f"ray: {'; '.join(wrong)}. {_REMEDY}")

    @classmethod
    def tiny(cls) -> dict[str, Any]:
        """See the contract."""
        return {}


def _surroundings(libraries: Sequence[str]) -> dict[str, str]:
    """In a process of the cluster."""
    return surroundings(libraries)


def _differences(node: str, found: Mapping[str, str], here: Mapping[str, str]) -> str:
    """In words; "" where there are none."""
    said = [f"{name} {found.get(name)} (here {value})" for name, value in here.items() if found.get(name) != value]
    return f"the node {node} has {', '.join(said)}" if said else ""


def _make(work: Work, shard: int, there: Mapping[str, str]) -> tuple[Made, str]:
    """In a process of the cluster: what became of the shard, and the id of the node that made it.

    Args:
        there: what the program's machine has; a node that joined after all were asked is refused here.

    Raises:
        EngineError: this node has something else.
    """
    if wrong := _differences(platform.node(), surroundings(work.libraries), there):
        raise EngineError(f"ray: {wrong}. {_REMEDY}")
    return make_held(work, shard), ray.get_runtime_context().get_node_id()


def _got(done: Any) -> Any:
    """What a task gave, or its own error in place of Ray's account of it."""
    try:
        return ray.get(done)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        raise EngineError(f"ray lost a shard more often than `retries` allows; what is finished is kept: {error}") from error
