from __future__ import annotations

import os

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import numpy as np
import PIL.Image
import pytest

from datamodules.datasets.photographs import Photographs


@pytest.fixture(scope="session")
def photograph() -> np.ndarray:
    """(96, 96, 3) uint8: an embedded test photograph, read-only so that whoever changes it fails."""
    chelsea = next(p for p in Photographs().photographs["test"] if p.name == "chelsea").read()
    image = np.array(PIL.Image.fromarray(chelsea[:300, 80:380]).resize((96, 96), PIL.Image.Resampling.LANCZOS))
    image.setflags(write=False)
    return image


@pytest.fixture(scope="session")
def ray_cluster():
    """Two nodes of a Ray cluster on this machine, one core each; the tests' process is connected to it."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 2**27, "include_dashboard": False})
    cluster.add_node(num_cpus=1, object_store_memory=2**27)
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()
