"""Checkpoints as files and as folders of shards: whole or not at all, read alike, and nothing in them is executed."""

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from components.checkpoints import is_checkpoint, read, write_file, write_shards


@pytest.fixture(scope="module")
def mesh():
    """One rank, which is all ranks."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def checkpoint(mesh, factor=1.0):
    weight = torch.arange(10.0).view(5, 2) * factor
    shards = {"w": distribute_tensor(weight, mesh, [Shard(0)]), "b": torch.ones(3)}
    state = {0: {"step": torch.tensor(4.0), "exp_avg": distribute_tensor(weight + 1, mesh, [Shard(0)])}}
    return {"step": 4, "state_dict": shards, "optimizer_states": [{"state": state, "param_groups": [{"lr": 0.1}]}]}


def test_a_folder_reads_as_what_was_written(mesh, tmp_path):
    path = tmp_path / "last.ckpt"
    write_shards(path, checkpoint(mesh))
    found = read(path)
    assert found["step"] == 4
    assert torch.equal(found["state_dict"]["w"], torch.arange(10.0).view(5, 2))
    assert torch.equal(found["state_dict"]["b"], torch.ones(3))
    assert torch.equal(found["optimizer_states"][0]["state"][0]["exp_avg"], torch.arange(10.0).view(5, 2) + 1)
    assert found["optimizer_states"][0]["state"][0]["step"] == 4
    assert found["optimizer_states"][0]["param_groups"] == [{"lr": 0.1}]


def test_a_part_can_be_read_alone(mesh, tmp_path):
    write_shards(tmp_path / "last.ckpt", checkpoint(mesh))
    found = read(tmp_path / "last.ckpt", only="state_dict")
    assert found["state_dict"]["w"].shape == (5, 2)
    assert found["optimizer_states"][0]["state"][0]["exp_avg"] is None


def test_shards_are_read_where_they_belong(mesh, tmp_path):
    write_shards(tmp_path / "last.ckpt", checkpoint(mesh))
    found = read(tmp_path / "last.ckpt", lambda name, meta: distribute_tensor(torch.zeros(meta.size), mesh, [Shard(0)]))
    assert isinstance(found["state_dict"]["w"], DTensor)
    assert torch.equal(found["state_dict"]["w"].full_tensor(), torch.arange(10.0).view(5, 2))


def test_the_newest_is_kept_alone_in_either_form(mesh, tmp_path):
    path = tmp_path / "last.ckpt"
    for factor in (1.0, 2.0):
        write_shards(path, checkpoint(mesh, factor))
        assert sorted(p.name for p in tmp_path.iterdir()) == [path.resolve().name, "last.ckpt"]
        assert read(path)["state_dict"]["w"][4, 1] == 9 * factor
    write_file(path, {"step": 5})
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]
    assert read(path) == {"step": 5}
    write_shards(path, checkpoint(mesh))
    assert read(path)["step"] == 4


@pytest.mark.parametrize("write", [write_file, write_shards])
def test_a_kill_leaves_the_older_one(mesh, tmp_path, monkeypatch, write):
    path = tmp_path / "last.ckpt"
    older, newer = ({**checkpoint(mesh), "step": step} if write is write_shards else {"step": step} for step in (4, 9))
    write(path, older)

    def killed(self, target):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            write(path, newer)
    assert read(path)["step"] == 4
    write(path, newer)
    assert read(path)["step"] == 9
    assert len(list(tmp_path.iterdir())) <= 2


@pytest.mark.parametrize("write", [write_file, write_shards])
def test_what_a_power_cut_could_lose_is_on_the_disk_before_the_older_one_goes(mesh, tmp_path, monkeypatch, write):
    path, settled = tmp_path / "last.ckpt", set()
    fsync, replace = os.fsync, Path.replace

    def noted(descriptor):
        settled.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def unsettled(paths):
        return [p.name for p in paths if p.stat().st_ino not in settled]

    def named(self, target):
        new = self.resolve()
        assert unsettled([new, *new.iterdir()] if new.is_dir() else [new]) == []
        settled.discard(tmp_path.stat().st_ino)
        return replace(self, target)

    def removed(folder, **_):
        assert unsettled([tmp_path]) == []
        gone.append(folder)

    gone = []
    write_shards(path, checkpoint(mesh))
    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(Path, "replace", named)
    monkeypatch.setattr("components.checkpoints.shutil.rmtree", removed)
    write(path, checkpoint(mesh) if write is write_shards else {"step": 5})
    assert len(gone) == 1


def test_a_folder_copied_in_part_is_refused(mesh, tmp_path):
    write_shards(tmp_path / "last.ckpt", checkpoint(mesh))
    assert is_checkpoint(tmp_path / "last.ckpt")
    (tmp_path / "last.ckpt" / "rest.ckpt").unlink()
    assert not is_checkpoint(tmp_path / "last.ckpt")
    with pytest.raises(FileNotFoundError, match=r"has no rest.ckpt: it is no checkpoint, or was copied in part"):
        read(tmp_path / "last.ckpt")


class Trap:
    def __reduce__(self):
        return os.mkdir, (os.environ["TRAP"],)


@pytest.mark.parametrize("name", ["last.ckpt", "last.ckpt/rest.ckpt"])
def test_nothing_is_executed(tmp_path, name, monkeypatch):
    monkeypatch.setenv("TRAP", str(tmp_path / "sprung"))
    (tmp_path / name).parent.mkdir(exist_ok=True)
    torch.save({"state_dict": Trap()}, tmp_path / name)
    with pytest.raises(Exception, match="Weights only load failed"):
        read(tmp_path / "last.ckpt")
    assert not (tmp_path / "sprung").exists()
