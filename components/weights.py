"""Weights from a .safetensors file, loaded exactly: every key must be there, in name and in shape."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent


def check_source(weights: str, library: str = "pretrained") -> None:
    """Refuses, before anything is read, a source that is neither "" (random), `library` ("" where a library has none) nor a
    .safetensors file."""
    if weights not in ("", library) and not weights.endswith(".safetensors"):
        own = f"'{library}' (the library's own) " if library else ""
        raise ValueError(
            f"weights: got {weights!r}, allowed are '' (random), {own}or the path of a .safetensors file; "
            "save other formats again with safetensors.torch.save_file"
        )


def find_file(path: str) -> Path:
    """An absolute path, or one relative to the working directory, else to the repository's root (weights that are shipped with it).

    Raises:
        FileNotFoundError: neither exists; both are named.
    """
    places = [Path(path), ROOT / path]
    for place in places:
        if place.is_file():
            return place
    raise FileNotFoundError(f"no weights at {' or '.join(dict.fromkeys(str(p.absolute()) for p in places))}")


def load_weights(module: nn.Module, path: str, may_lack: tuple[str, ...] = ()) -> None:
    """Copies the file's tensors into `module`, at the module's own precision (half-precision files are upcast).

    Args:
        may_lack: beginnings of keys that the file may be without; the module keeps its own values for them.

    Raises:
        ValueError: a key is missing, unexpected or of another shape, or the file is damaged.
    """
    file = find_file(path)
    try:
        weights = load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file} is not a whole .safetensors file ({error}): fetch or write it again") from error
    if may_lack:
        kept = {k: v for k, v in module.state_dict().items() if k.startswith(may_lack)}
        if not kept.keys() & weights.keys():
            weights = {**kept, **weights}
    load_exactly(module, weights, str(file))


def load_exactly(module: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """`load_state_dict` with an error that names `source` and the keys that do not fit.

    Raises:
        ValueError: a key is missing, unexpected or of another shape.
    """
    own = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    given = {key: tuple(tensor.shape) for key, tensor in weights.items()}
    faults = {
        "missing": [k for k in own if k not in given],
        "unexpected": [k for k in given if k not in own],
        "of another shape": [f"{k} {given[k]} instead of {own[k]}" for k in own if given.get(k, own[k]) != own[k]],
    }
    if any(faults.values()):
        told = "; ".join(f"{len(keys)} {fault}: {_some(keys)}" for fault, keys in faults.items() if keys)
        raise ValueError(f"{source} does not fit {type(module).__name__}: {told}. Choose the architecture that the file was saved from")
    module.load_state_dict(weights)


def _some(keys: list[str], most: int = 5) -> str:
    return ", ".join(keys[:most]) + (", ..." if len(keys) > most else "")
