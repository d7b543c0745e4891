"""Nothing is left of a model that is released, whoever holds it."""

import weakref

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from components.release import release


def trained(model):
    model(torch.ones(2, 8)).sum().backward()
    return model


def test_a_held_model_is_empty():
    model = trained(nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8)))
    storages = [weakref.ref(x) for p in (*model.parameters(), *model.buffers()) for x in (p.untyped_storage(),)]
    gradients = [weakref.ref(p.grad) for p in model.parameters()]
    release(model)
    assert all(x.is_meta for x in (*model.parameters(), *model.buffers()))
    assert not any(ref() for ref in (*storages, *gradients))


@pytest.fixture
def mesh():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def test_so_is_a_sharded_one(mesh):
    """FSDP keeps shards of its own, and after a forward pass without a backward one what it has gathered."""
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4))
    fully_shard(model[0], mesh=mesh)
    fully_shard(model, mesh=mesh)
    trained(model)
    shards = [p.to_local() for p in model.parameters()]
    assert all(s.untyped_storage().nbytes() for s in shards)
    model(torch.ones(2, 8))
    release(model)
    assert all(p.is_meta for p in model.parameters())
    assert not any(s.untyped_storage().nbytes() for s in shards)
