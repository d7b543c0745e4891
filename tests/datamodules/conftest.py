from __future__ import annotations

import os

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import sys

import numpy as np
import PIL.Image
import pytest

import prepare
from datamodules.datasets.photographs import Photographs
from lightning_modules.entry import run_entry


@pytest.fixture(scope="session")
def photograph() -> np.ndarray:
    """(96, 96, 3) uint8: an embedded test photograph, read-only so that whoever changes it fails."""
    chelsea = next(p for p in Photographs().photographs["test"] if p.name == "chelsea").read()
    image = np.array(PIL.Image.fromarray(chelsea[:300, 80:380]).resize((96, 96), PIL.Image.Resampling.LANCZOS))
    image.setflags(write=False)
    return image


@pytest.fixture(scope="session")
def ray_nodes():
    """Two nodes of a Ray cluster on this machine, one core each."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 2**27, "include_dashboard": False})
    cluster.add_node(num_cpus=1, object_store_memory=2**27)
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def ray_cluster(ray_nodes):
    """The tests' process is connected to the two nodes, and no longer than these tests: other tests fork, and Ray runs threads here."""
    import ray

    ray.init(address=ray_nodes.address, log_to_driver=False)
    yield ray_nodes
    ray.shutdown()


@pytest.fixture
def prepare_command(monkeypatch, capsys):
    """Runs `python prepare.py <words>` in this process: -> (exit status, what it printed)."""

    def run(*words) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["prepare.py", *map(str, words)])
        capsys.readouterr()
        try:
            run_entry(prepare._entry)
        except SystemExit as ended:
            return (1, str(ended.code)) if isinstance(ended.code, str) else (int(ended.code or 0), capsys.readouterr().out)
        return 0, capsys.readouterr().out

    return run
