"""What a reader needs to repeat a run: code version, package versions, machine."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "torchvision", "lightning", "timm", "transformers", "peft", "omegaconf", "numpy", "scipy", "scikit-image", "pillow")
OTHERS = ("pyiqa",)  # recorded where they are installed


def facts(root: Path, device: torch.device) -> dict[str, Any]:
    """What a reader needs to repeat a run: code version, package versions, machine."""
    return {
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "git": _git(root),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in [*PACKAGES, *filter(_installed, OTHERS)]},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
    }


def _installed(name: str) -> bool:
    return any(True for _ in importlib.metadata.distributions(name=name))


def _processor() -> str:
    """Its model, since costs are ranked within one device: two of one architecture may differ several times over."""
    count = torch.get_num_threads()
    return f"{_model()} ({platform.machine()}), {count} thread{'s' if count > 1 else ''}"


def _model(told: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name as Linux gives it, or its parts where it has none (ARM), or as Python does; else "CPU"."""
    lines = [line.partition(":") for line in told.read_text().splitlines()] if told.is_file() else []
    found = {key.strip(): value.strip() for key, _, value in reversed(lines)}
    parts = [f"{key} {found[key]}" for key in ("CPU implementer", "CPU part") if key in found]
    return found.get("model name") or " ".join(parts) or platform.processor() or "CPU"


def _git(root: Path) -> str:
    """The commit, with "-dirty" where the tree differs from it; "unknown" outside a checkout."""
    try:
        out = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=root, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return out.stdout.strip()
