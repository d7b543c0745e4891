"""python benchmarks/data_loading.py: samples/s of `indexed` with its collating, against decoding the same images alone; one process.

Photograph-like PNG images of 768 x 512 pixels in a zip archive, 34 regions each (blobs of about 7 % of the image), in 1,024 rows that lie
in row groups of 64, as `index` writes them, visited in random order out of the copies that `prepare` makes. "read" adds the row, its labels
and run lengths to the decoding; "batch" also the masks at the encoder's size, boxes and labels of all regions. Collating brings the image
to that size, which any loader does: "resize" is the decoding with it, and what is ours is measured against that. Our overhead is that of a
batch without crops; crops are what a model asks for, and are shown beside it. Rates are per processor second.
"""

from __future__ import annotations

import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from scipy.ndimage import gaussian_filter, label

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from components import rle
from components.preprocess import Preprocess, prepare_image
from datamodules.archives import ImageFiles
from datamodules.collate import Collate
from datamodules.datasets.indexed import Indexed
from datamodules.images import decode_image
from datamodules.records import ImageRecord, RegionRecord, encode_png
from datamodules.tables import SCHEMA, RecordWriter, to_row

ROWS, GROUP = 1024, 64
IMAGES, REGIONS, HEIGHT, WIDTH = 40, 34, 512, 768
ROUNDS = 3
CASES = ((256, 0, REGIONS), (512, 0, REGIONS), (256, 0, 8), (512, 0, 8), (256, 64, 8))  # encoder, crops, regions of a sample


def write_data(folder: Path) -> list[str]:
    """Returns the images' paths."""
    rng, records = np.random.default_rng(0), []
    with zipfile.ZipFile(folder / "Blur_0.zip", "w") as archive:
        for n in range(IMAGES):
            smooth = gaussian_filter(rng.standard_normal((HEIGHT, WIDTH, 3)), (3, 3, 0))
            pixels = np.clip(128 + 300 * smooth + rng.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)
            archive.writestr(f"Blur_0/{n:06d}.png", encode_png(pixels))
            regions = [RegionRecord(f"{n}/{r}", _mask(rng), rng.random(), None, rng.random()) for r in range(REGIONS)]
            path = f"Blur_0.zip::Blur_0/{n:06d}.png"
            records.append(ImageRecord(f"Blur_0/{n:06d}", f"{n}", "train", HEIGHT, WIDTH, tuple(regions), path=path))
    rows = [to_row(replace(records[n % IMAGES], id=f"{n}")) for n in range(ROWS)]
    with RecordWriter(folder / "part.parquet") as writer:
        writer.write_table(pa.Table.from_pylist(rows, SCHEMA), GROUP)
    return [row["path"] for row in rows]


def _mask(rng: np.random.Generator) -> str:
    """One connected blob, as mask encoders give them."""
    field = gaussian_filter(rng.standard_normal((HEIGHT // 8, WIDTH // 8)), 6)
    blobs, _ = label(field > np.quantile(field, 0.85))
    largest = blobs == np.bincount(blobs[blobs > 0]).argmax()
    return str(rle.encode(np.kron(largest, np.ones((8, 8))))["counts"])


def rates(loops: dict[str, Callable[[Sequence[int]], object]]) -> dict[str, float]:
    """Images per second of each loop, the best of several rounds that take turns."""
    best = dict.fromkeys(loops, 0.0)
    order = np.random.default_rng(1).permutation(ROWS)[:IMAGES].tolist()
    for _ in range(ROUNDS):
        for name, loop in loops.items():
            start = time.process_time()
            for first in range(0, IMAGES, 8):
                loop(order[first : first + 8])
            best[name] = max(best[name], IMAGES / (time.process_time() - start))
    return best


def loops(folder: Path, paths: Sequence[str], size: int, crop: int, k: int) -> dict[str, Callable[[Sequence[int]], object]]:
    """What is compared: each takes the numbers of images."""
    files, data = ImageFiles(folder), Indexed(root=str(folder), regions=k, cache=f"{folder}/cache")
    data.prepare()
    samples = data.split("train")
    shown = np.flatnonzero(samples.piece == 0).tolist()  # a sample of each image
    preprocess = Preprocess(size, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    collate = Collate(preprocess, crop)

    def decoded(i: int) -> torch.Tensor:
        return torch.from_numpy(decode_image(files.read(paths[i]), paths[i])).permute(2, 0, 1)

    return {
        "decode": lambda batch: [decoded(i) for i in batch],
        "resize": lambda batch: [prepare_image(decoded(i), preprocess) for i in batch],
        "read": lambda batch: [samples[shown[i]] for i in batch],
        "batch": lambda batch: collate([samples[shown[i]] for i in batch]),
    }


def main() -> None:
    """Prints rates, and what is ours as a share of decoding."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        paths = write_data(Path(name))
        for size, crop, k in CASES:
            found = rates(loops(Path(name), paths, size, crop, k))
            print(
                f"encoder {size}, crops {crop or 'none'}: " + ", ".join(f"{k} {v:.1f}/s" for k, v in found.items()),
                f"; reading a sample costs {found['decode'] / found['read'] - 1:.1%} over decoding, "
                f"a batch {found['resize'] / found['batch'] - 1:.1%} over decoding and resizing ({k} regions a sample)",
            )


if __name__ == "__main__":
    main()
