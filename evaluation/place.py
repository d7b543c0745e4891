"""The folder of a comparison: its files say of what they are, and what another left there is not replaced unasked."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.splits import Splits

COMPARISON = ("comparison.json", "comparison.csv", "comparison.md", "comparison.tex", "differences.csv", "splits.json", "report.html")
ACROSS = ("across.json", "across.csv", "across.md", "across.tex")


def made_of(entries: Sequence[Path], splits: Splits | None, out: Path) -> dict[str, Any]:
    """What tells one comparison from another: the paths of its entries from `out`, sorted, and the hash of splits that were given."""
    return {
        "entries": sorted(Path(os.path.relpath(path.resolve(), out.resolve())).as_posix() for path in entries),
        "splits": splits.hash if splits else None,
    }


def check_place(out: Path, asked: dict[str, Any] | None = None, overwrite: bool = False) -> None:
    """Whether a comparison may be written into `out`; changes nothing.

    Args:
        asked: as `made_of` has it, None for one that may replace any other.
        overwrite: so may this.

    Raises:
        FileExistsError: `out` is a file or a run, or it holds a comparison of something else and may not be overwritten.
    """
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out} is a file, and a comparison needs a folder: choose another (--out)")
    if (out / "config.yaml").exists():
        raise FileExistsError(f"{out} is the folder of a run (it has a config.yaml): choose another for the comparison (--out)")
    if asked is None or overwrite:
        return
    for name in (COMPARISON[0], ACROSS[0]):
        if (out / name).exists() and (why := _other(out / name, asked)):
            raise FileExistsError(f"{out} holds {why}: choose another folder (--out), or replace it with --overwrite")


def _other(path: Path, asked: dict[str, Any]) -> str:
    """What a comparison is that is not the one that is asked for, "" where it is."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))["made_of"]
        entries, splits = kept["entries"], kept["splits"]
    except (ValueError, KeyError, TypeError):
        return f"a comparison that does not say of which entries ({path.name})"
    if entries != asked["entries"]:
        return f"a comparison of other entries (seen from there: {', '.join(entries)})"
    return "" if splits == asked["splits"] else "a comparison of these entries with other splits"


def remove(out: Path, names: Sequence[str]) -> None:
    """Removes what a comparison of the other kind left in `out`, so that all that is there belongs together; files that no comparison is
    beside are somebody's own. The first of `names` says that there is one, and goes last."""
    if (out / names[0]).exists():
        for name in reversed(names):
            (out / name).unlink(missing_ok=True)
