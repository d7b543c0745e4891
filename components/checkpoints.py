"""A training's checkpoint on disk: one file, or a folder to which every rank adds its shards. Neither can execute anything when read.

    last.ckpt                          a file of torch.save, read with weights_only
    last.ckpt -> last-1a2b3c4d/        or a link to a folder:
        rest.ckpt                      all that is no shard, as such a file
        shard-*.safetensors            each rank's rows, with their place in the whole

Either appears under its name when it is complete; until then the older one stands there. A folder written by any number of ranks is
read by any other: by one process whole, by several each its own rows.
"""

from __future__ import annotations

import os
import shutil
import uuid
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.tensor import DTensor

_REST = "rest.ckpt"
_SHARD = "shard:"  # stands in rest.ckpt for a tensor that is in the shards, before its name there


def write_file(path: Path, checkpoint: Mapping[str, Any]) -> None:
    """Writes a checkpoint as one file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    _save(checkpoint, draft)
    old = path.resolve() if path.is_symlink() else None
    draft.replace(path)
    _settle(path.parent)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


def write_shards(path: Path, checkpoint: Mapping[str, Any]) -> None:
    """Writes a checkpoint whose sharded tensors (DTensor) stay where they are; all ranks of the process group call it together."""
    named = [uuid.uuid4().hex[:8]]
    dist.broadcast_object_list(named)
    folder = path.with_name(f"{path.stem}-{named[0]}")
    shards: dict[str, Tensor] = {}
    rest = _taken_apart(checkpoint, "", shards)
    folder.mkdir(parents=True, exist_ok=True)
    dist.barrier()
    dcp.save(shards, storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))
    if dist.get_rank() == 0:
        _save(rest, folder / _REST)
        link = path.with_name(f".{path.name}.draft")
        link.unlink(missing_ok=True)
        link.symlink_to(folder.name)
        _settle(folder)
        link.replace(path)
        _settle(path.parent)  # before the older one is removed
        for other in path.parent.glob(f"{path.stem}-*"):
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)
    dist.barrier()


def read(path: Path, place: Callable[[str, Any], Tensor] | None = None, only: str = "") -> dict[str, Any]:
    """Reads a checkpoint of either form.

    Args:
        place: for a folder: the name of a sharded tensor (its keys, joined by dots) and its shape and dtype -> a tensor to read it
            into, sharded where all ranks call this together. By default each is read whole.
        only: reads the tensors below this key alone, and leaves the others out.

    Raises:
        FileNotFoundError: no such checkpoint, or one that is not whole.
    """
    if not path.is_dir():
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    if not (path / _REST).is_file():
        raise FileNotFoundError(f"{path} has no {_REST}: it is no checkpoint, or was copied in part")
    rest = torch.load(path / _REST, map_location="cpu", weights_only=True)
    reader = HuggingFaceStorageReader(str(path))
    known = reader.read_metadata().state_dict_metadata
    wanted = {name: meta for name, meta in known.items() if name.startswith(only)}
    shards = {name: (place or whole)(name, meta) for name, meta in wanted.items()}
    if shards:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # as it should be, by one process
            dcp.load(shards, storage_reader=reader, no_dist=place is None)
    return dict(_put_together(rest, shards))


def is_checkpoint(path: Path) -> bool:
    """Whether something complete stands at `path`."""
    return path.is_file() or (path / _REST).is_file()


def whole(name: str, meta: Any) -> Tensor:
    """A whole tensor of that shape and precision, to read one into."""
    return torch.empty(meta.size, dtype=meta.properties.dtype)


def _save(value: Mapping[str, Any], path: Path) -> None:
    with path.open("wb") as file:
        torch.save(dict(value), file)
        file.flush()
        os.fsync(file.fileno())


def _settle(folder: Path) -> None:
    """Waits until the names in a folder are on the disk; what the files hold is there already (`_save`, and PyTorch's writer)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _taken_apart(value: Any, name: str, shards: dict[str, Tensor]) -> Any:
    """`value` with a stand-in for each sharded tensor, which goes into `shards`."""
    if isinstance(value, DTensor):
        shards[name] = value.detach()
        return _SHARD + name
    if isinstance(value, Mapping):
        return {key: _taken_apart(inner, f"{name}.{key}".lstrip("."), shards) for key, inner in value.items()}
    if isinstance(value, list):
        return [_taken_apart(inner, f"{name}.{place}".lstrip("."), shards) for place, inner in enumerate(value)]
    return value


def _put_together(value: Any, shards: Mapping[str, Tensor]) -> Any:
    if isinstance(value, str) and value.startswith(_SHARD):
        return shards.get(value.removeprefix(_SHARD))
    if isinstance(value, Mapping):
        return {key: _put_together(inner, shards) for key, inner in value.items()}
    if isinstance(value, list):
        return [_put_together(inner, shards) for inner in value]
    return value
