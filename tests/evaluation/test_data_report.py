from __future__ import annotations

import dataclasses
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import prepare
from components import rle
from components.registry import ConfigError
from datamodules.datasets.base import DATASETS
from datamodules.records import ImageRecord, RegionRecord, encode_png
from datamodules.tables import SCHEMA, to_row, write_records
from evaluation.data_report import distortion_counts, figures, histogram

MASK = np.zeros((10, 10), bool)
MASK[:5] = True


def record(*known) -> ImageRecord:
    regions = tuple(RegionRecord(str(i), rle.encode(MASK)["counts"], **k) for i, k in enumerate(known))
    return ImageRecord("a", "s", "train", 10, 10, regions)


def heights(figure):
    return [patch.get_height() for patch in figure.axes[0].patches]


def widths(figure):
    return [patch.get_width() for patch in figure.axes[0].patches]


def test_a_histogram_counts_and_leaves_out_what_is_unknown():
    figure = histogram([0.1, 0.1, 0.9, float("nan")], "Quality", "quality")
    assert sum(heights(figure)) == 3
    assert max(heights(figure)) == 2
    assert any("n = 3, 1 unknown   mean 0.367" in t.get_text() for t in figure.axes[0].texts)


def test_distortions_are_counted_by_type_and_severity():
    regions = record(
        {"distortions": (("blur", "minor"), ("noise", "minor"))}, {"distortions": ()}, {}, {"distortions": (("blur", "severe"),)}
    )
    figure = distortion_counts(regions.regions)
    assert sum(widths(figure)) == 4  # three named, one clean
    assert any("1 of 4 regions unknown" in t.get_text() for t in figure.axes[0].texts)


def test_what_nobody_labelled_has_no_figure():
    assert set(figures([record({})])) == {"area", "regions"}
    assert set(figures([record({"quality": 0.5, "quality_std": 0.1, "distortions": ()})])) == {
        "quality",
        "quality_std",
        "distortions",
        "area",
        "regions",
    }


def test_the_page_of_a_data_set(tmp_path):
    root = DATASETS.get("indexed").tiny()["root"]
    found = prepare.main(["show", root, str(tmp_path / "page.html"), "--pictures", "3", "--images", "5"])
    assert (found["images"], found["pictures"]) == (5, 3)
    page = (tmp_path / "page.html").read_text()
    assert len(re.findall('src="data:image/jpeg;base64,', page)) == 3
    assert len(re.findall('src="data:image/png;base64,', page)) == 6
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert "9 of 9 images (100.0%) can be used" in page
    assert "Of 5 of 9 images, drawn by seed 0" in page
    assert sorted(p.name for p in tmp_path.iterdir()) == ["page.html"]


def test_labels_are_plotted_where_no_image_is_there(tmp_path, capsys):
    table = dataclasses.replace(record({"quality": 0.5}), path="photos/a.png", png=b"", split="val")
    write_records(tmp_path / "data" / "a.parquet", [table])
    found = prepare.main(["show", str(tmp_path / "data"), str(tmp_path / "page.html")])
    assert (found["images"], found["pictures"]) == (1, 0)
    assert "it shows labels alone, for no image is where the tables say" in capsys.readouterr().out
    page = (tmp_path / "page.html").read_text()
    assert len(re.findall('src="data:image/png;base64,', page)) == 3
    assert "0 of 1 images (0.0%) can be used" in page


@pytest.fixture
def damaged(tmp_path):
    """Tables of nine images: one cannot be decoded, one is of another size, one has a mask that is none, one a scale that is none."""
    folder = tmp_path / "data"
    (folder / "photos").mkdir(parents=True)
    rows = []
    for n in range(9):
        path = f"photos/{n}.png"
        (folder / path).write_bytes(encode_png(np.full((10, 10, 3), 20 * n, np.uint8)))
        rows.append(to_row(dataclasses.replace(record({"quality": 0.1 * n}), id=f"image {n}", source=str(n), path=path, png=b"")))
    (folder / "photos" / "1.png").write_bytes(b"<html>")
    (folder / "photos" / "2.png").write_bytes(encode_png(np.zeros((3, 3, 3), np.uint8)))
    rows[3]["regions"][0] |= {"counts": "not a mask", "box": None, "area": None}
    rows[4]["regions"][0]["quality_scale"] = {"low": 5, "high": 1, "direction": "higher"}
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), folder / "part.parquet")
    return folder


def test_what_cannot_be_shown_is_skipped_counted_and_named(damaged, tmp_path, capsys):
    """Others are shown in its place; nothing is written but the page."""
    options = ["--pictures", "9", "--data", f"cache={tmp_path / 'cache'}"]
    found = prepare.main(["show", str(damaged), str(tmp_path / "page.html"), *options])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "page.html"]
    assert (found["images"], found["pictures"], len(found["skipped"])) == (7, 5, 4)
    page, printed = (tmp_path / "page.html").read_text(), capsys.readouterr().out
    assert len(re.findall('src="data:image/jpeg;base64,', page)) == 5
    assert "4 images cannot be shown: " in printed
    assert "4 images cannot be shown" in page
    for said in (
        r"photos/1\.png is not an image that Pillow can read",
        r"image image 2 has 3 x 3 pixels",
        r"image image 3, region \S+: ",
        r"image image 4: a scale goes from a lower",
    ):
        assert sum(bool(re.search(said, why)) for why in found["skipped"]) == 1
        assert re.search(said, printed)
        assert re.search(said, page)
    assert printed.count(f"To train without such images, list them once: python prepare.py validate {damaged} --images") == 1
    assert "problems.json" not in page
    few = prepare.main(["show", str(damaged), str(tmp_path / "page.html"), "--pictures", "5"])
    assert few["pictures"] == 5


def test_a_page_of_data_of_which_nothing_can_be_shown(damaged, tmp_path):
    for n in range(9):
        (damaged / "photos" / f"{n}.png").write_bytes(b"<html>")
    found = prepare.main(["show", str(damaged), str(tmp_path / "page.html")])
    assert (found["images"], found["pictures"], len(found["skipped"])) == (7, 0, 9)
    assert "9 images cannot be shown" in (tmp_path / "page.html").read_text()


def test_the_page_is_a_page(tmp_path):
    with pytest.raises(ConfigError, match=r"the page is a file that ends in \.html"):
        prepare.main(["show", "x", str(tmp_path / "page.pdf")])
