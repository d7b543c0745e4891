"""The data of a folder as training would read it: its tables, or the list of regions that stands in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.registry import ConfigError, configured
from datamodules.datasets.indexed import Indexed
from datamodules.datasets.roi_folder import RoiFolder

LISTS = ("labels.csv", "labels.jsonl")


def data_of(folder: Path, options: Mapping[str, Any]) -> Indexed | RoiFolder:
    """The data set of a folder, `indexed` or `roi_folder`; nothing is read yet.

    A list is taken where it has one of the names `LISTS` and no table stands beside it, or where `options` names it (`table`).

    Args:
        options: of `roi_folder` (the scales of the scores, say), or of `indexed`.

    Raises:
        ConfigError: an option that the data set has not; neither a table nor a list.
    """
    own = {"root": str(folder), **options}
    listed = next((name for name in LISTS if (folder / name).is_file()), "")
    if "table" not in options and (not listed or any(folder.glob("*.parquet"))):
        _check_tables(folder)
        return configured(Indexed, own, "indexed")()
    return configured(RoiFolder, {"table": listed, **own}, "roi_folder")()


def _check_tables(folder: Path) -> None:
    """Raises ConfigError for a folder without tables, whose list may have another name."""
    if not folder.is_dir() or any(folder.rglob("*.parquet")):
        return  # where there is no folder, `parts_of` says so
    others = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in (".csv", ".jsonl"))
    named = f": it holds {', '.join(others[:5])}" if others else ""
    raise ConfigError(
        f"{folder} holds no Parquet file, and no list of regions {' or '.join(LISTS)}{named}. A list of another name is given as "
        f"--data table={others[0] if others else 'NAME.csv'}; docs/data.md describes both forms"
    )
