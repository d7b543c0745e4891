"""The data of a folder as training would read it: its tables, or the list of regions that stands in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.registry import configured
from datamodules.datasets.indexed import Indexed
from datamodules.datasets.roi_folder import RoiFolder

LISTS = ("labels.csv", "labels.jsonl")


def data_of(folder: Path, options: Mapping[str, Any]) -> Indexed | RoiFolder:
    """The data set of a folder, `indexed` or `roi_folder`; nothing is read yet.

    A list is taken where it has one of the names `LISTS` and no table stands beside it, or where `options` names it (`table`).

    Args:
        options: of `roi_folder` (the scales of the scores, say), or of `indexed`.

    Raises:
        ConfigError: an option that the data set has not.
    """
    own = {"root": str(folder), **options}
    listed = next((name for name in LISTS if (folder / name).is_file()), "")
    if "table" not in options and (not listed or any(folder.glob("*.parquet"))):
        return configured(Indexed, own, "indexed")()
    return configured(RoiFolder, {"table": listed, **own}, "roi_folder")()
