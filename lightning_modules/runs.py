"""A run's folder: what is written, what a second run of the same name may do, and what a finished one records."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torchvision", "lightning", "timm", "transformers", "peft", "omegaconf", "numpy", "scipy", "scikit-image", "pillow")


class RunError(RuntimeError):
    """A run's folder is in the way or is not what it was taken for."""


class Run:
    """`outputs/<name>/`: config.yaml, run.json, metrics.json, scores.parquet, plots/, report.html, checkpoints/, logs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config, self.checkpoint = folder / "config.yaml", folder / "checkpoints" / "last.ckpt"
        self.metrics, self.scores = folder / "metrics.json", folder / "scores.parquet"

    def begin(self, config: str) -> Path | None:
        """Makes the folder ready for training with `config` (YAML).

        A run of the same configuration that was interrupted is resumed; a finished one is made again from the start.

        Returns:
            The checkpoint to resume from, or None.

        Raises:
            RunError: the folder holds a run of another configuration, or something that is no run.
        """
        if self.config.exists() and self.config.read_text() != config:
            raise RunError(
                f"{self.folder} holds a run with another configuration ({_difference(self.config.read_text(), config)}). "
                f"Give this one its own name (name=...), or remove that folder"
            )
        if not self.config.exists() and self.folder.exists() and any(self.folder.iterdir()):
            raise RunError(f"{self.folder} is not a run (it has no config.yaml) and is not empty: give this run another name (name=...)")
        if self.metrics.exists():
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.config, config)
        return self.checkpoint if self.checkpoint.exists() else None

    def require_checkpoint(self) -> Path:
        """The checkpoint of a trained run. Raises RunError where there is none."""
        if not self.config.exists():
            raise RunError(f"{self.folder} is not a run: it has no config.yaml. Runs are made by train.py, under outputs/")
        if not self.checkpoint.exists():
            raise RunError(f"{self.folder} has no {self.checkpoint.relative_to(self.folder)}: its training has not got that far")
        return self.checkpoint


def write_text(path: Path, text: str) -> None:
    """Writes atomically: the file is the old one or the new one, never half."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text)
    draft.replace(path)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """As `write_text`, indented, with keys in the order given."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def facts(root: Path) -> dict[str, Any]:
    """What a reader needs to repeat a run: code version, package versions, machine."""
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    return {
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "git": _git(root),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "device": device,
    }


def _git(root: Path) -> str:
    """The commit, with "-dirty" where the tree differs from it; "unknown" outside a checkout."""
    try:
        out = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=root, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return out.stdout.strip()


def _difference(old: str, new: str) -> str:
    """The first lines in which two YAML texts differ."""
    before, after = set(old.splitlines()), set(new.splitlines())
    changed = [f"there {line.strip()!r}" for line in old.splitlines() if line not in after][:2]
    changed += [f"here {line.strip()!r}" for line in new.splitlines() if line not in before][:2]
    return ", ".join(changed)
