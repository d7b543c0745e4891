"""The processes of a training: who starts them, who is who, how they wait for each other, and how they end together."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments import ClusterEnvironment, LightningEnvironment, SLURMEnvironment, TorchElasticEnvironment

from components.registry import ConfigError
from lightning_modules.entry import leave_with

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = timedelta(days=7)  # ranks wait this long while one of them makes the data
STATUS = 75  # of a training that was told to go and has saved its state; EX_TEMPFAIL of sysexits.h: try again
GRACE = 5.0  # seconds in which a rank may fail by itself once another has failed
_STORE = "ROI_IQA_STORE"  # port and process id of the rank that started this one


@dataclass(frozen=True)
class Ranks:
    """The processes that train together, seen from one of them.

    Attributes:
        rank: of this process, counted over all nodes; rank 0 alone writes and prints.
        world: how many there are. local: rank within the node, which is also the number of its GPU.
        environment: who started them, in Lightning's words.
    """

    rank: int = 0
    world: int = 1
    local: int = 0
    environment: ClusterEnvironment = field(default_factory=LightningEnvironment)
    _waiting: Any = None  # a group without a GPU's impatience

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all are here."""
        if self.world > 1:
            dist.barrier(group=self._waiting)

    def most(self, value: int) -> int:
        """The largest of what the ranks give."""
        if self.world == 1:
            return value
        given = torch.tensor(value)
        dist.all_reduce(given, dist.ReduceOp.MAX, group=self._waiting)
        return int(given)

    def agree(self, value: bool) -> bool:
        """What rank 0 gives, whatever the others do."""
        return bool(self.most(int(value and self.first)))

    def in_turn(self, make: Callable[[], None]) -> None:
        """`make` by rank 0, then by the first rank of every node (which finds it made where disks are shared), then by all."""
        for turn in (self.rank == 0, self.rank > 0 and self.local == 0, self.local > 0):
            if turn:
                make()
            self.wait()


def devices(wanted: int | str, cuda: bool) -> int:
    """How many processes a node has.

    Args:
        wanted: a number, or "auto" for what torchrun or srun started, else for every GPU, else for one.

    Raises:
        ConfigError: more than there are GPUs.
    """
    if isinstance(wanted, str):
        outside = _outside()
        local = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("SLURM_NTASKS_PER_NODE") or 0) if outside else 0
        return local or (torch.cuda.device_count() if cuda else 1)
    if cuda and wanted > torch.cuda.device_count():
        raise ConfigError(f"trainer.devices is {wanted}, and torch sees {torch.cuda.device_count()} GPUs on this node")
    return wanted


@contextmanager
def ranks(local: int, nodes: int, *, cuda: bool, group: bool, experiment: str) -> Iterator[Ranks]:
    """The processes of a training of `local` ranks on each of `nodes` nodes, as long as it lasts.

    Those that torchrun or srun has started find each other. Otherwise this process becomes rank 0, starts the others, and ends them
    if it fails; if one of them fails, it fails.

    Args:
        cuda: whether they talk through NCCL. group: whether one process alone needs a process group too.
        experiment: the resolved configuration as YAML, for processes that are started here.

    Raises:
        ConfigError: another number of processes was started than configured, or several nodes and nobody started theirs.
    """
    outside = _outside()
    if outside is not None:
        _check_started(outside, local, nodes)
        address = f"tcp://{outside.main_address}:{outside.main_port}" if isinstance(outside, SLURMEnvironment) else "env://"
        with _grouped(outside.global_rank(), outside.world_size(), outside.local_rank(), outside, cuda, init_method=address) as found:
            yield found
    elif _STORE in os.environ:
        port, parent = map(int, os.environ[_STORE].split())
        rank = int(os.environ["LOCAL_RANK"])
        leave_with(parent)
        store = dist.TCPStore("127.0.0.1", port, local, is_master=False)
        with _grouped(rank, local, rank, LightningEnvironment(), cuda, store=store) as found:
            yield found
    elif nodes > 1:
        raise ConfigError(f"trainer.nodes is {nodes}: start the processes of all nodes by torchrun or srun (docs/training.md shows how)")
    elif local > 1:
        with _started(local, experiment) as store, _grouped(0, local, 0, LightningEnvironment(), cuda, store=store) as found:
            yield found
    elif group:
        with _grouped(0, 1, 0, LightningEnvironment(), cuda, store=dist.HashStore()) as found:
            yield found
    else:
        yield Ranks()


def _outside() -> ClusterEnvironment | None:
    """Who has started the processes of this training, if somebody has."""
    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    if int(os.environ.get("SLURM_NTASKS", 1)) > 1 and "SLURM_PROCID" in os.environ and SLURMEnvironment.detect():
        return SLURMEnvironment(auto_requeue=False)  # its handler would save in the middle of a step; see `saving`
    return None


def _check_started(outside: ClusterEnvironment, local: int, nodes: int) -> None:
    if outside.world_size() != local * nodes:
        raise ConfigError(
            f"{outside.world_size()} processes were started, but trainer.devices={local} on trainer.nodes={nodes} makes {local * nodes}: "
            "give both as they are started"
        )


@contextmanager
def _grouped(rank: int, world: int, local: int, environment: ClusterEnvironment, cuda: bool, **rendezvous: Any) -> Iterator[Ranks]:
    if cuda:
        torch.cuda.set_device(local)
    if "init_method" in rendezvous and rendezvous["init_method"] == "env://":
        dist.init_process_group("nccl" if cuda else "gloo")
    else:
        dist.init_process_group("nccl" if cuda else "gloo", rank=rank, world_size=world, **rendezvous)
    try:
        yield Ranks(rank, world, local, environment, dist.new_group(backend="gloo", timeout=PATIENCE))
    finally:
        dist.destroy_process_group()


@contextmanager
def _started(count: int, experiment: str) -> Iterator[dist.TCPStore]:
    """Ranks 1 to `count` - 1 of this node, and the store in which they find each other."""
    store = dist.TCPStore("127.0.0.1", 0, count, is_master=True, wait_for_workers=False)
    share = max(1, (os.cpu_count() or 1) // count)
    torch.set_num_threads(min(torch.get_num_threads(), share))
    threads = {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": str(share)}
    before = os.environ.get("LOCAL_RANK")
    os.environ["LOCAL_RANK"] = "0"  # by which Lightning sees that the others are there
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "experiment.yaml"
        path.write_text(experiment)
        command = [sys.executable, str(ROOT / "train.py"), str(path)]
        shared = {**os.environ, **threads, _STORE: f"{store.port} {os.getpid()}"}
        others = [subprocess.Popen(command, env={**shared, "LOCAL_RANK": str(rank)}) for rank in range(1, count)]
        over = threading.Event()
        threading.Thread(target=_watch, args=(others, over), daemon=True).start()
        try:
            yield store
            over.set()
            for process in others:
                process.wait()
        finally:
            over.set()
            for process in others:
                process.kill()
                process.wait()
            os.environ.pop("LOCAL_RANK") if before is None else os.environ.update(LOCAL_RANK=before)


def _watch(others: list[subprocess.Popen[bytes]], over: threading.Event) -> None:
    """Ends this process soon after another rank has failed: it might wait for it forever."""
    while not over.wait(0.5):
        failed = [rank for rank, process in enumerate(others, 1) if process.poll() not in (None, 0, STATUS)]
        if failed:
            if not over.wait(GRACE):
                print(f"error: rank {failed[0]} has failed, see above; the others are ended", file=sys.stderr, flush=True)
                for process in others:
                    process.kill()
                os._exit(1)
            return
