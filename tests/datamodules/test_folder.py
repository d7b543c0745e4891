"""Anybody's own images are checked and shown, from a list or from tables, as training would read them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import prepare
from components.registry import ConfigError
from datamodules.datasets.base import DATASETS
from datamodules.folder import data_of


@pytest.fixture
def listed(tmp_path) -> Path:
    """Five images with boxes and scores of 1 to 5, and no table."""
    folder = tmp_path / "my_images"
    shutil.copytree(DATASETS.get("roi_folder").tiny()["root"], folder, ignore=shutil.ignore_patterns("cache"))
    return folder


def test_a_list_is_checked_and_shown(listed, tmp_path, capsys):
    options = ["--data", "quality_scale=[1,5]", f"cache={tmp_path / 'cache'}"]
    report = prepare.main(["validate", str(listed), "--images", *options])
    assert (report["errors"], report["coverage"]["images"], report["coverage"]["regions"]) == (0, 5, 15)
    assert "5 of 5 images (100.0%) can be used" in capsys.readouterr().out
    shown = prepare.main(["show", str(listed), str(tmp_path / "page.html"), "--pictures", "2", *options])
    assert (shown["images"], shown["pictures"]) == (5, 2)
    assert not list(listed.glob("*.parquet"))


def test_a_list_of_another_name_and_what_it_does_not_take(listed, tmp_path):
    (listed / "labels.csv").rename(listed / "scores.csv")
    options = {"table": "scores.csv", "quality_scale": [1, 5], "cache": str(tmp_path / "cache")}
    found = data_of(listed, options)
    found.prepare()
    assert len(found.tables.rows.parts) == 1
    said = r"holds no Parquet file, and no list of regions labels\.csv or labels\.jsonl: it holds scores\.csv\. .* --data table=scores\.csv"
    for command in (["validate", str(listed)], ["show", str(listed), str(tmp_path / "page.html")]):
        with pytest.raises(ConfigError, match=said):
            prepare.main(command)
    (listed / "scores.csv").rename(tmp_path / "scores.csv")
    with pytest.raises(ConfigError, match=r"labels\.jsonl\. A list of another name is given as --data table=NAME\.csv"):
        prepare.main(["validate", str(listed)])
    (tmp_path / "scores.csv").rename(listed / "scores.csv")
    with pytest.raises(ConfigError, match="roi_folder: unknown key 'images'"):
        prepare.main(["validate", str(listed), "--data", "table=scores.csv", "--image-root", "elsewhere"])


def test_tables_are_read_as_they_are():
    root = DATASETS.get("indexed").tiny()["root"]
    assert data_of(Path(root), {"images": "elsewhere"}).files.root == Path("elsewhere")
    with pytest.raises(ConfigError, match="indexed: unknown key 'quality_scale'"):
        data_of(Path(root), {"quality_scale": [1, 5]})
