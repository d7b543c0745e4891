"""A folder of images with a list of regions that is clean, and the faults that are planted into it."""

from __future__ import annotations

import csv
import io
import json
import tarfile
import zipfile

import numpy as np
import PIL.Image

from components import rle
from datamodules.records import encode_png

HEIGHT, WIDTH, IMAGES = 20, 30, 12
OPTIONS = ("quality_scale=[1,5]",)


def write_images(folder):
    """Twelve images, of six scenes."""
    for n in range(IMAGES):
        pixels = np.random.default_rng(n).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        (folder / f"{n}.png").write_bytes(encode_png(pixels))
    PIL.Image.fromarray(mask()[:, ::-1]).save(folder / "mask.png")


def mask(height=HEIGHT, width=WIDTH):
    inside = np.zeros((height, width), bool)
    inside[3:12, 4:15] = True
    return inside


def clean_rows():
    """Two regions of each image, with a form each of a region; lines 2 to 25: image n stands on lines 2n + 2 and 2n + 3."""
    rng, rows = np.random.default_rng(0), []
    for n in range(IMAGES):
        for r in range(2):
            form = ("box", "polygon", "rle", "mask")[(2 * n + r) % 4]
            value = {
                "box": "3 2 9 9",
                "polygon": "5 2 14 2 14 11 5 11",
                "rle": json.dumps(rle.encode(mask())),
                "mask": "mask.png",
            }[form]
            labels = {
                "quality": round(rng.uniform(1.8, 4.2), 2),
                "quality_std": round(rng.uniform(0.5, 0.7), 2),
                "importance": round(rng.uniform(0.2, 0.8), 3),
                "importance_std": 0.12,
                "distortion": ("clean", "severe blur; minor noise", "")[n % 3],
            }
            split = "train" if n < 8 else "val" if n < 10 else "test"
            rows.append({"image": f"{n}.png", "id": r, form: value, **labels, "split": split, "group": f"scene {n // 2}"})
    return rows


def write_list(folder, rows, name="labels.csv"):
    columns = dict.fromkeys(key for row in rows for key in row)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    (folder / name).write_text(text.getvalue())


def in_row(line=10, **values):
    """Line 10 is the first of 4.png, a box; 11 a polygon, 12 run lengths, 13 a mask file."""

    def plant(folder, rows):
        rows[line - 2].update(values)

    return plant


def region(line, **form):
    """Another form of the region."""
    return in_row(line, **{"box": "", "polygon": "", "rle": "", "mask": "", **form})


SMALL = json.dumps(rle.encode(mask(15, 20)))


def every(**changes):
    """`column=function of its value`, in every row."""

    def plant(folder, rows):
        for row in rows:
            row.update({column: change(row[column]) for column, change in changes.items()})

    return plant


def of_image(n, **values):
    def plant(folder, rows):
        for row in rows[2 * n : 2 * n + 2]:
            row.update(values)

    return plant


def copy_of(n, original):
    return lambda folder, rows: (folder / f"{n}.png").write_bytes((folder / f"{original}.png").read_bytes())


def overwrite(name, data):
    return lambda folder, rows: (folder / name).write_bytes(data)


def cut_short(folder, rows):
    (folder / "4.png").write_bytes((folder / "4.png").read_bytes()[:200])


def pack(folder, names, archive="photos.zip"):
    """Moves files into an archive, below `in/`."""
    if archive.endswith(".tar"):
        with tarfile.open(folder / archive, "w") as packed:
            for name in names:
                packed.add(folder / name, f"in/{name}")
    else:
        with zipfile.ZipFile(folder / archive, "w", zipfile.ZIP_DEFLATED) as packed:
            for name in names:
                packed.write(folder / name, f"in/{name}")
    for name in names:
        (folder / name).unlink()


def in_archive(more=lambda folder: None, mask_too=False):
    """4.png is in an archive to which `more` happens; or the mask of line 13 is."""

    def plant(folder, rows):
        pack(folder, ["mask.png" if mask_too else "4.png"])
        for row in rows:
            if mask_too and row.get("mask"):
                row["mask"] = "photos.zip::in/mask.png"
            elif row["image"] == "4.png":
                row["image"] = "4.png" if mask_too else "photos.zip::in/4.png"
        more(folder)

    return plant


def repacked(folder):
    (folder / "photos.zip").unlink()
    pack(folder, ["0.png"])
    with zipfile.ZipFile(folder / "photos.zip") as packed:
        (folder / "0.png").write_bytes(packed.read("in/0.png"))


def flipped(folder):
    """A byte of the member, which the archive's checksum betrays."""
    data = bytearray((folder / "photos.zip").read_bytes())
    data[len(data) // 3] ^= 1
    (folder / "photos.zip").write_bytes(bytes(data))


def small_mask(folder, rows):
    PIL.Image.fromarray(mask(15, 20)).save(folder / "small.png")
    region(13, mask="small.png")(folder, rows)


def black_mask(folder, rows):
    PIL.Image.fromarray(np.zeros((HEIGHT, WIDTH), bool)).save(folder / "black.png")
    region(13, mask="black.png")(folder, rows)


def opinions(*more):
    """Rows of their own about the region of line 10, without deviations."""

    def plant(folder, rows):
        rows[8].update(quality_std="", importance_std="")
        rows += [{**rows[8], **values} for values in more]

    return plant


def without_splits(groups):
    def plant(folder, rows):
        for n, row in enumerate(rows):
            del row["split"]
            row["group"] = f"scene {n * groups // len(rows)}"

    return plant


def everything(folder, rows):
    """Many faults at once, of every part of the list."""
    (folder / "0.png").unlink()
    in_row(6, quality="9")(folder, rows)
    region(10, box="25 2 9 9")(folder, rows)
    region(14, box="40 2 9 9")(folder, rows)
    in_row(16, split="dev")(folder, rows)
    in_row(19, group="another")(folder, rows)
    in_row(20, id="")(folder, rows)
    rows[0]["mos"] = 3


# what is planted; what is found (sort -> count), a part of the place that is named, images and rows that cannot be used
FAULTS = {
    "an image is not there": (lambda f, rows: (f / "4.png").unlink(), {"image missing": 1}, "labels.csv line 10, image '4.png'", 1, 2),
    "an image is none": (overwrite("4.png", b"<html>"), {"image unreadable": 1}, "line 10, image '4.png'", 1, 2),
    "an image is cut short": (cut_short, {"image unreadable": 1}, "line 10", 1, 2),
    "an archive is not there": (
        in_archive(lambda f: (f / "photos.zip").unlink()),
        {"archive missing": 1},
        "line 10, image 'photos.zip::in/4.png': archive",
        1,
        2,
    ),
    "an archive is damaged": (
        in_archive(lambda f: (f / "photos.zip").write_bytes(b"PK")),
        {"archive missing": 1},
        "line 10, image 'photos.zip::in/4.png': archive",
        1,
        2,
    ),
    "an archive lacks the image": (in_archive(repacked), {"image missing": 1}, "photos.zip has no member in/4.png", 1, 2),
    "an image is damaged in its archive": (in_archive(flipped), {"image unreadable": 1}, "line 10, image 'photos.zip::in/4.png'", 1, 2),
    "an archive outside the folder": (of_image(4, image="../a.zip::4.png"), {"path": 1}, "line 10, image '../a.zip::4.png'", 1, 2),
    "an archive of masks is not there": (
        in_archive(lambda f: (f / "photos.zip").unlink(), mask_too=True),
        {"mask": 6},
        "line 5, image '1.png': mask photos.zip::in/mask.png: archive",
        6,
        12,
    ),
    "an absolute path": (of_image(4, image="/etc/4.png"), {"path": 1}, "line 10, image '/etc/4.png'", 1, 2),
    "a path that leaves the folder": (of_image(4, image="../4.png"), {"path": 1}, "line 10, image '../4.png'", 1, 2),
    "no image": (in_row(image=""), {"row": 1}, "labels.csv line 10: a row has an image", 0, 1),
    "no id": (in_row(id=""), {"row": 1}, "line 10, image '4.png': a row has", 1, 2),
    "no region": (region(10), {"row": 1}, "line 10, image '4.png'", 1, 2),
    "two regions in a row": (in_row(10, mask="mask.png"), {"row": 1}, "line 10, image '4.png'", 1, 2),
    "an unknown column": (in_row(2, mos=3), {"column": 1}, "labels.csv line 1: unknown column 'mos'", 0, 0),
    "a box that is none": (region(10, box="3 2 9"), {"region": 1}, "line 10, image '4.png': a box is left, top", 1, 2),
    "a box outside": (region(11, box="40 2 9 9"), {"region": 1}, "line 11, image '4.png': box", 1, 2),
    "a box in fractions": (
        region(11, box="0.1 0.2 0.5 0.4"),
        {"region": 1},
        "line 11, image '4.png': box 0.1 0.2 0.5 0.4 lies within a pixel: it is given in pixels, not in fractions",
        1,
        2,
    ),
    "a polygon in fractions": (region(11, polygon="0 0 0.5 0 1 1"), {"region": 1}, "line 11, image '4.png': polygon", 1, 2),
    "a box of one pixel": (region(11, box="0 0 1 1"), {"tiny region": 1}, "line 11, image '4.png': box 0 0 1 1 is one pixel", 0, 0),
    "a box that reaches out": (region(11, box="25 2 9 9"), {"region cut": 1}, "line 11, image '4.png': box 25 2 9 9 reaches", 0, 0),
    "a polygon that reaches out": (region(11, polygon="3 2 40 2 9 9"), {"region cut": 1}, "line 11, image '4.png': polygon", 0, 0),
    "a region that is nan": (
        region(11, polygon="nan"),
        {"region": 1},
        "labels.csv line 11, image '4.png': polygon is 'nan', which is no region: leave the cell empty",
        1,
        2,
    ),
    "a region twice": (
        opinions({}),
        {"region twice": 1},
        "labels.csv line 26, image '4.png': region '0' stands on line 10 with the same in every cell",
        0,
        0,
    ),
    "a region under two names": (
        region(11, box="3,2,9,9"),
        {"region twice": 1},
        "labels.csv line 11, image '4.png': region '1' has the pixels of region '0' on line 10: delete one of the two",
        0,
        0,
    ),
    "a polygon of two points": (region(11, polygon="3 2 9 9"), {"region": 1}, "line 11, image '4.png'", 1, 2),
    "run lengths of another size": (region(12, rle=SMALL), {"mask": 1}, "RLE is 20 x 15 pixels, the image", 1, 2),
    "run lengths that are none": (region(12, rle="not a mask"), {"mask": 1}, "line 12, image '5.png'", 1, 2),
    "a mask that is not there": (region(13, mask="no.png"), {"mask": 1}, "line 13, image '5.png': mask file", 1, 2),
    "a mask outside the folder": (region(13, mask="../mask.png"), {"mask": 1}, "line 13, image '5.png'", 1, 2),
    "a mask of another size": (small_mask, {"mask": 1}, "line 13, image '5.png'", 1, 2),
    "a mask without a pixel": (black_mask, {"mask": 1}, "line 13, image '5.png'", 1, 2),
    "a score above its scale": (in_row(quality=5.01), {"label out of scale": 1}, "line 10, image '4.png': quality 5.01", 1, 2),
    "a score below its scale": (in_row(quality=0.4), {"label out of scale": 1}, "line 10", 1, 2),
    "an importance of another scale": (in_row(importance=3), {"label out of scale": 1}, "line 10, image '4.png': importance 3", 1, 2),
    "scores of another scale": (
        every(quality=lambda value: 20 * value),
        {"scale": 1},
        "labels.csv: 24 of 24 scores of quality lie outside their scale, 1 to 5: they go from",
        0,
        0,
    ),
    "a score that is nan": (in_row(importance="nan"), {"label out of scale": 1}, "line 10", 1, 2),
    "a score in words": (in_row(quality="good"), {"number": 1}, "line 10, image '4.png': quality is a number, got 'good'", 1, 2),
    "a deviation in words": (in_row(quality_std="?"), {"number": 1}, "line 10, image '4.png': quality_std is a number", 1, 2),
    "a deviation below zero": (in_row(quality_std=-0.1), {"std not of the scale": 1}, "line 10, image '4.png': quality_std", 1, 2),
    "a deviation without its score": (in_row(importance=""), {"std without score": 1}, "line 10, image '4.png': importance_std 0.12", 0, 0),
    "deviations of 0 to 100 beside scores of 1 to 5": (
        every(quality_std=lambda std: 25 * std),
        {"std not of the scale": 24, "std very large": 1},
        "quality_std: the median of 24 is",
        0,
        0,
    ),
    "deviations of 0 to 1 beside scores of 1 to 5": (
        every(quality_std=lambda std: std / 4),
        {"std very small": 1},
        "quality_std: the median of 24 is 0.1",
        0,
        0,
    ),
    "the same of importance": (
        every(importance_std=lambda std: std / 4),
        {"std very small": 1},
        "importance_std: the median of 24 is 0.03 on 0 to 1",
        0,
        0,
    ),
    "scores rescaled and their deviations not": (
        every(importance_std=lambda std: 5 * std),
        {"std not of the scale": None, "std very large": 1},
        "importance_std: the median of 24 is 0.6 on 0 to 1",
        0,
        0,
    ),
    "opinions about two places": (opinions({"box": "1 1 5 5"}), {"opinions": 1}, "line 26, image '4.png': the rows of region", 1, 3),
    "opinions with a deviation": (opinions({"quality_std": 0.4}), {"opinions": 1}, "line 26, image '4.png'", 1, 3),
    "a third opinion off the scale": (opinions({"quality": 2}, {"quality": 7}), {"label out of scale": 1}, "line 27, image '4.png'", 1, 4),
    "an unknown distortion": (in_row(distortion="minor sharpness"), {"distortion": 1}, "line 10, image '4.png': distortion 'minor", 1, 2),
    "an unknown severity": (in_row(distortion="some blur"), {"distortion": 1}, "line 10, image '4.png': distortion 'some blur'", 1, 2),
    "a distortion twice": (in_row(distortion="minor blur; severe blur"), {"distortion": 1}, "line 10, image '4.png'", 1, 2),
    "an unknown split": (of_image(4, split="dev"), {"split": 2}, "line 10, image '4.png': split is train, val, test", 1, 2),
    "a split for some": (in_row(split=""), {"split": 1}, "line 10, image '4.png': split is train, val, test in every row", 1, 2),
    "a group in two splits": (of_image(5, split="test"), {"source in two splits": 2}, "line 12, image '5.png': the group 'scene 2'", 1, 2),
    "an image in two splits": (in_row(11, split="val"), {"source in two splits": 1}, "line 11, image '4.png'", 1, 2),
    "an image in two groups": (in_row(11, group="another"), {"group": 1}, "line 11, image '4.png': image 4.png is in the groups", 1, 2),
    "two groups to deal": (without_splits(2), {"too few groups": 1}, "labels.csv: 2 groups of images", 0, 0),
    "an image twice": (copy_of(4, 1), {"image twice": 1}, "line 10, image '4.png': also at labels.csv line 4, image '1.png'", 0, 0),
    "an image twice in splits": (copy_of(10, 1), {"image twice in splits": 1}, "line 22, image '10.png': also at labels.csv line 4", 1, 2),
    "all at once": (
        everything,
        {
            **{"image missing": 1, "label out of scale": 1, "region cut": 1, "region": 1, "split": 1, "group": 1, "row": 1, "column": 1},
            **{"split empty": 1},
        },
        "labels.csv line 2, image '0.png': image",
        6,
        12,
    ),
}  # fmt: skip
