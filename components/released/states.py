"""Checkpoints that are one pickled state: read without executing anything, and renamed name by name."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from components.released.shards import CheckpointError

_WRAPPERS = ("state_dict", "model_state_dict")  # under which some trainings put the tensors
_PARALLEL = "module."  # before every name where several GPUs trained


class Names:
    """A one-to-one translation of names by their beginnings.

    Args:
        released: beginning of our name -> beginning of theirs.
    """

    def __init__(self, released: Mapping[str, str]) -> None:
        self._released = dict(released)
        self._ours = {theirs: ours for ours, theirs in released.items()}

    def to_released(self, name: str) -> str | None:
        """Our name -> theirs; None for a tensor that they do not have."""
        return _translated(name, self._released)

    def to_ours(self, name: str) -> str | None:
        """Their name -> ours; None for an unknown one."""
        return _translated(name, self._ours)

    def bring(self, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], where: object) -> dict[str, Tensor]:
        """Their tensors under our names, unchanged; exactly those of `wanted`, in name and shape.

        Raises:
            CheckpointError: naming what is missing, unknown or of another shape.
        """
        expected = {theirs: name for name in wanted if (theirs := self.to_released(name)) is not None}
        faults = {
            "missing": sorted(expected.keys() - found.keys()),
            "unknown": sorted(found.keys() - expected.keys()),
            "of another shape": sorted(
                f"{theirs} {tuple(found[theirs].shape)} instead of {tuple(wanted[ours].shape)}"
                for theirs, ours in expected.items()
                if theirs in found and found[theirs].shape != wanted[ours].shape
            ),
        }
        if any(faults.values()):
            told = "; ".join(f"{len(names)} {what} (first: {names[0]})" for what, names in faults.items() if names)
            raise CheckpointError(f"{where} is not the released checkpoint of this model: tensors {told}. Nothing was written")
        return {ours: found[theirs] for theirs, ours in expected.items()}


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a file as `read_wrapped` finds them."""
    return read_wrapped(path)[0]


def read_wrapped(path: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a file of `torch.save`, and the key that they are under, such as `state_dict`; "" where they are not under one.
    Nothing but tensors is unpickled; "module." before all names is taken away.

    Raises:
        CheckpointError: no such file, a damaged one, or one that holds something else.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is no file: give the file that the authors released")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{path} is no checkpoint of tensors alone, or is damaged ({reason}): it is not read") from error
    under = ""
    for wrapper in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found, under = found[wrapper], wrapper
    if not isinstance(found, Mapping) or not all(isinstance(v, Tensor) for v in found.values()):
        raise CheckpointError(f"{path} holds no mapping of names to tensors: give the file that the authors released")
    start = _PARALLEL if found and all(str(name).startswith(_PARALLEL) for name in found) else ""
    return {str(name).removeprefix(start): x for name, x in found.items()}, under


def _translated(name: str, table: Mapping[str, str]) -> str | None:
    start = next((s for s in table if name.startswith(s)), None)
    return None if start is None else table[start] + name[len(start) :]
