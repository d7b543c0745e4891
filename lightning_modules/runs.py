"""A run's folder: what is written, and what a second run of the same name may do (`lightning_modules.facts`: what one records)."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

PLACEMENT = ("devices", "nodes", "strategy", "accumulate", "accelerator", "workers", "threads")  # of `trainer`: where a run goes on
OURS = {"name", "model", "data", "trainer", "optim"}  # keys of every config.yaml that a run wrote
FINISHED = "finished"  # a run that was trained and measured
WRITTEN = (
    "metrics.json",
    "checkpoints",
    "logs",
    "plots",
    "report.html",
    "scores.parquet",
    "vision_encoder.safetensors",
    "nonfinite.json",
    "run.json",
    "config.yaml",
)


class RunError(RuntimeError):
    """A run's folder is in the way or is not what it was taken for."""


class NonFiniteError(RuntimeError):
    """The loss or a gradient became NaN or infinite; names the step and the regions of its batches."""


class Run:
    """`outputs/<name>/`: config.yaml, run.json, metrics.json, scores.parquet, plots/, report.html, checkpoints/, logs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config, self.checkpoint = folder / "config.yaml", folder / "checkpoints" / "last.ckpt"
        self.metrics, self.scores, self.record = folder / "metrics.json", folder / "scores.parquet", folder / "run.json"

    def check(self, config: str) -> None:
        """Whether `begin` may write here; changes nothing.

        Raises:
            RunError: the folder holds a trained or half-trained run of another configuration, or something that is no run.
        """
        if not self.config.exists():
            if self.folder.exists() and any(self.folder.iterdir()):
                raise RunError(
                    f"{self.folder} is not a run (it has no config.yaml) and is not empty: give this run another name (name=...)"
                )
            return
        there = self.config.read_text()
        if there != config and not _is_ours(there):
            raise RunError(f"{self.folder} holds a config.yaml that is not this project's: give this run another name (name=...)")
        kept = self.checkpoint.parent.exists() and any(self.checkpoint.parent.iterdir())
        same = _placed(there) == _placed(config) if self.resumable() else there == config
        if not same and (kept or self.metrics.exists()):
            raise RunError(
                f"{self.folder} holds a run with another configuration ({_difference(there, config)}). "
                f"Give this one its own name (name=...), or remove that folder"
            )

    def resumable(self) -> bool:
        """Whether training would go on from a checkpoint: the run was begun and has not been measured."""
        return self.checkpoint.exists() and not self.metrics.exists()

    def check_data(self, data: Mapping[str, Any]) -> None:
        """Raises RunError where a run that would be resumed was trained on other data than `data` describes."""
        before = json.loads(self.record.read_text())["data"] if self.resumable() and self.record.exists() else data
        if json.loads(json.dumps(before)) != json.loads(json.dumps(data)):
            changed = sorted(k for k in {*before, *data} if before.get(k) != json.loads(json.dumps(data.get(k))))
            raise RunError(
                f"{self.folder} was begun on other data ({', '.join(changed)} differ; a new version of the code or of a library makes "
                "other samples): finish it with that version, or give this run another name (name=...)"
            )

    def begin(self, config: str) -> Path | None:
        """Makes the folder ready for training with `config` (YAML).

        A run of the same configuration that was interrupted is resumed, perhaps on other devices (`PLACEMENT`); a finished one is made
        again from the start, and one that came to no checkpoint leaves nothing behind.

        Returns:
            The checkpoint to resume from, or None.

        Raises:
            RunError: as `check`.
        """
        self.check(config)
        if not self.resumable():
            for name in WRITTEN:
                _remove(self.folder / name)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.config, config)
        return self.checkpoint if self.checkpoint.exists() else None

    def curves(self) -> Path | None:
        """The logged numbers of all attempts in one CSV, logs/curves.csv: each attempt goes on from a checkpoint, so it replaces what
        the one before logged beyond that step. None where nothing was logged."""
        import pandas as pd  # here, for many who must know of runs read no curves

        attempts = sorted((self.folder / "logs" / "csv").glob("*/metrics.csv"), key=lambda p: int(p.parent.name.rpartition("_")[2]))
        tables = [pd.read_csv(path) for path in attempts if path.stat().st_size]
        if not tables:
            return None
        kept = tables[-1]
        for table in reversed(tables[:-1]):
            kept = pd.concat([table[table["step"] < kept["step"].min()], kept])
        path = self.folder / "logs" / "curves.csv"
        write_text(path, kept.to_csv(index=False))
        return path

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


def _is_ours(config: str) -> bool:
    try:
        found = yaml.safe_load(config)
    except yaml.YAMLError:
        return False
    return isinstance(found, dict) and set(found) >= OURS


def _placed(config: str) -> Any:
    """A configuration without where it runs."""
    found = yaml.safe_load(config)
    if isinstance(found.get("trainer"), dict):
        found["trainer"] = {k: v for k, v in found["trainer"].items() if k not in PLACEMENT}
    return found


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _difference(old: str, new: str) -> str:
    """The first lines in which two YAML texts differ."""
    old, new = (yaml.safe_dump(_placed(text), sort_keys=False) if _placed(old) != _placed(new) else text for text in (old, new))
    before, after = set(old.splitlines()), set(new.splitlines())
    changed = [f"there {line.strip()!r}" for line in old.splitlines() if line not in after][:2]
    changed += [f"here {line.strip()!r}" for line in new.splitlines() if line not in before][:2]
    return ", ".join(changed)
