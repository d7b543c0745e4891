"""A folder of weights in one or several files, with or without an index: read tensor by tensor, nothing unpickled but tensors."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

_NAMES = ("pytorch_model.bin", "model.safetensors")


class CheckpointError(ValueError):
    """A checkpoint that is not what it should be: a file is missing or damaged, or its tensors are others than those expected."""


class Shards(Mapping[str, Tensor]):
    """The tensors of a folder by name. A tensor is read from the disk when it is used, so holding one costs nothing.

    Attributes:
        place: name -> file name.

    Raises:
        CheckpointError: no weights there, a file missing or damaged, or an index that disagrees with the files.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise CheckpointError(f"{folder} is not a folder: give the folder that holds the checkpoint's files")
        self.folder = folder
        self._tensors: dict[str, Tensor] = {}
        self.place: dict[str, str] = {}
        claimed = _index(folder)
        for file in sorted(set(claimed.values())) if claimed else [_single(folder)]:
            found = open_tensors(folder / file)
            self._tensors.update(found)
            self.place.update(dict.fromkeys(found, file))
        if claimed and claimed != self.place:
            lost = sorted(k for k in claimed if self.place.get(k) != claimed[k])
            more = sorted(k for k in self.place if k not in claimed)
            told = [f"{len(x)} {what} (first: {x[0]})" for x, what in ((lost, "not where it says"), (more, "it does not name")) if x]
            raise CheckpointError(f"the index of {folder} disagrees with its files: tensors {', '.join(told)}. Fetch index and files again")

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def _index(folder: Path) -> dict[str, str]:
    """name -> file, as the index says; {} where there is none."""
    for name in _NAMES:
        path = folder / f"{name}.index.json"
        if path.is_file():
            try:
                claimed = dict(json.loads(path.read_text())["weight_map"])
            except (ValueError, KeyError, TypeError) as error:
                raise CheckpointError(f"{path} is not an index with a 'weight_map' ({error!r}): fetch it again") from error
            if strange := sorted({file for file in claimed.values() if Path(str(file)).name != file}):
                raise CheckpointError(f"{path} names {strange[0]!r}, which is no file of its folder: it is not read")
            return claimed
    return {}


def _single(folder: Path) -> str:
    for name in _NAMES:
        if (folder / name).is_file():
            return name
    wanted = ", ".join(f"{n} or {n}.index.json" for n in _NAMES)
    raise CheckpointError(f"{folder} holds no weights: looked for {wanted}, found {', '.join(sorted(p.name for p in folder.iterdir()))}")


def open_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of one file, .safetensors or what torch.save wrote, left on the disk until they are used.

    Raises:
        CheckpointError: missing, damaged, or holding anything but tensors.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: fetch it, or write it again")
    remedy = "it is truncated or damaged: fetch it again, and compare its size and checksum with the hub's"
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt") as file:
                return {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 - not a mapping
        except SafetensorError as error:
            raise CheckpointError(f"{path} cannot be read ({error}): {remedy}") from error
    try:
        found: Any = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path} holds more than tensors, and is not opened: only plain state dicts are read ({error})") from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({_first_line(error)}): {remedy}") from error
    if not isinstance(found, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in found.items()):
        raise CheckpointError(f"{path} holds {type(found).__name__}, expected a mapping of names to tensors")
    return found


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
