"""What trained tensors stand on: the frozen weights that a checkpoint does not hold, told apart by a fingerprint.

Adapters fit any base of the same shapes, and score nonsense on all but their own: Vicuna and Llama 2 have the same files down to the
header. So a checkpoint names its base, and a digest of a sample of its values is compared before anything is put on another one. The
sample is 64 values of every tensor, evenly spaced: reading them costs a moment at any size, and fine-tuning a model, or merging adapters
into it, changes nearly all of them. What is quantised when it is loaded is sampled from its files, as these are the same for every
precision and every machine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from components.released.shards import open_tensors

Foundations = dict[str, dict[str, str]]  # part of a scorer -> what is told of it
RANDOM = "random weights"  # of no file; the run's seed makes them again
_SAMPLE = 64
_COMPARED = ("architecture", "weights")  # the other entries are for readers


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """A digest of names, shapes, precisions and sampled values: 16 hexadecimal digits; "" where values are missing (meta device)."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        x = tensors[name].detach()
        if x.is_meta:
            return ""
        digest.update(f"{name} {tuple(x.shape)} {x.dtype}".encode())
        flat = x.reshape(-1)
        count = min(_SAMPLE, flat.numel())
        places = torch.arange(count, device="cpu") * (flat.numel() - 1) // max(1, count - 1)  # whole numbers, the same on any device
        digest.update(flat[places.to(flat.device)].cpu().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def fingerprint_of_files(folder: Path) -> str:
    """As `fingerprint`, of the model.safetensors in a folder or of those that its index names; most of them is left unread."""
    index = folder / "model.safetensors.index.json"
    files = sorted(set(json.loads(index.read_text())["weight_map"].values())) if index.is_file() else ["model.safetensors"]
    return fingerprint({name: x for file in files for name, x in open_tensors(folder / file).items()})


def check_foundations(there: Foundations, here: Foundations, what: str) -> None:
    """Whether `here` is what the tensors of `what` were trained on.

    Raises:
        ValueError: it is not; names both, part by part.
    """
    told = [
        f"{part}: {_told(there.get(part))} there, {_told(here.get(part))} here"
        for part in {**there, **here}
        if any(there.get(part, {}).get(key) != here.get(part, {}).get(key) for key in _COMPARED)
    ]
    if told:
        raise ValueError(
            f"{what} was trained on other frozen weights ({'; '.join(told)}): on these its tensors mean nothing. "
            "Give it the weights that it names"
        )


def _told(base: Mapping[str, str] | None) -> str:
    return (
        "not frozen" if base is None else ", ".join(value if key == "model" else f"{key} {value}" for key, value in base.items() if value)
    )
