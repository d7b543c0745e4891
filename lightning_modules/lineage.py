"""What a run stands on: the models that its configuration begins with or learns from, and whether they are still those that it had."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lightning_modules.runs import Run

_WEIGHTS = ("checkpoints/last.ckpt", "model.safetensors")  # of a run, of a saved model


def stands_on(config: Mapping[str, Any]) -> list[str]:
    """The folders that an experiment names in `start_from` and `distillation.teacher`."""
    named = (config.get("start_from"), (config.get("distillation") or {}).get("teacher"))
    return [folder for folder in named if folder]


def note(config: Mapping[str, Any]) -> dict[str, str]:
    """Folder -> SHA-256 of its weights' file, for run.json; without folders that have no such file."""
    found = {folder: digest(Path(folder)) for folder in stands_on(config)}
    return {folder: hashed for folder, hashed in found.items() if hashed}


def digest(folder: Path) -> str | None:
    """SHA-256 of the file with the weights of a run or of a saved model, None where there is none."""
    for name in _WEIGHTS:
        if (folder / name).is_file():
            with (folder / name).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
    return None


def outdated(configs: Mapping[Path, str]) -> dict[Path, Path]:
    """Runs that were trained, at least in part, on what is no longer there -> what that was, among `configs`.

    A run whose run.json notes nothing about it is taken as it is, unless what it stands on is missing or outdated itself.

    Args:
        configs: folder of each run -> its configuration as YAML, those that others stand on first.
    """
    found: dict[Path, Path] = {}
    for folder, text in configs.items():
        run = Run(folder)
        if not (run.checkpoint.exists() or run.metrics.exists()):
            continue
        record = json.loads(run.record.read_text()) if run.record.exists() else {}
        for below in (Path(name) for name in stands_on(yaml.safe_load(text))):
            if below not in configs:
                continue
            known = record.get("stands_on", {}).get(str(below))
            gone = below in found or not Run(below).metrics.exists()
            if gone or (known is not None and known != digest(below)):
                found[folder] = below
    return found
