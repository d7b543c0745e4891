"""python benchmarks/data_index.py [MIB ...]: the speed and memory of `prepare.py index` on generated label files of realistic shape.

Each size runs in a process of its own. The rate is of the score file, per second of processor time (one thread), over the whole index:
reading both label files, joining them and writing the tables. Flat memory shows in the peaks of the two sizes.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

sys.path.insert(0, str(Path(__file__).parent.parent))

from components import rle
from components.prompts import DISTORTION_TYPES
from datamodules.label_mapping import load_mapping
from datamodules.seagull_100w import Indexer

REGIONS, SETTINGS = 34, 20  # of an image, of a type of distortion: as published
HEIGHT, WIDTH = 512, 768
SIZES = (128, 1024)  # MiB of the score file


def write_labels(folder: Path, mib: int) -> tuple[int, int]:
    """Scores of `mib` MiB, about 177 bytes a region and version as published, and their masks. Returns the sizes in bytes."""
    (folder / "Labels").mkdir(parents=True)
    masks, scores = (folder / "Labels" / f"SEAGULL-100w_{name}.json" for name in ("mask-based-rois", "scores"))
    rng, reference = np.random.default_rng(0), 0
    pool = [_mask(rng) for _ in range(64)]
    with masks.open("w") as mask_file, scores.open("w") as score_file:
        while score_file.tell() < mib * 2**20:
            start = ", " if reference else "["
            chosen = rng.integers(0, len(pool), REGIONS)
            words = [{"id": r, **pool[m], "semantic": "cup", "description": "A white cup on a saucer."} for r, m in enumerate(chosen)]
            mask_file.write(start + json.dumps({"id": f"{reference:06d}", "annotations": words}))
            versions = [(kind, setting) for kind in DISTORTION_TYPES for setting in range(SETTINGS)]
            numbers = rng.random((len(versions), REGIONS, 2)).tolist()
            listed = [_version(reference, *v, n) for v, n in zip(versions, numbers, strict=True)]
            score_file.write(start + json.dumps(listed)[1:-1])
            reference += 1
        mask_file.write("]")
        score_file.write("]")
    return masks.stat().st_size, scores.stat().st_size


def _mask(rng: np.random.Generator) -> dict[str, object]:
    field = gaussian_filter(rng.standard_normal((HEIGHT // 8, WIDTH // 8)), 6)
    code = rle.encode(np.kron(field > np.quantile(field, 0.9), np.ones((8, 8))))
    return {"segmentation": code, "bbox": rle.box(code)}


def _version(reference: int, kind: str, setting: int, numbers: list[list[float]]) -> dict[str, object]:
    regions = [
        {"id": r, "distortion_type": kind, "quality_score": q, "importance_score": i, "bbox": [10, 20, 300, 400]}
        for r, (q, i) in enumerate(numbers)
    ]
    return {"id": f"{kind.capitalize()}_{setting}/{reference:06d}.png", "annotations": regions}


def measure(mib: int) -> dict[str, float]:
    """One size, in this process: its peak memory is the index's."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, __file__, "--write", str(folder / "data"), str(mib)]
        masks, scores = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        cpu, wall = time.process_time(), time.perf_counter()
        counts = Indexer(folder / "data", folder / "out", load_mapping(None), (0.9, 0.05, 0.05), 0).run()["counts"]
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        size = sum(p.stat().st_size for p in (folder / "out").glob("*.parquet"))
    return {
        "scores_mib": scores / 2**20,
        "masks_mib": masks / 2**20,
        "regions": counts["regions"],
        "bytes_per_region_in": scores / counts["regions"],
        "bytes_per_region_out": size / counts["regions"],
        "mb_per_cpu_second": scores / 1e6 / cpu,
        "mb_per_second": scores / 1e6 / wall,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    """Prints a line for each size."""
    if sys.argv[1:2] == ["--write"]:
        print(json.dumps(write_labels(Path(sys.argv[2]), int(sys.argv[3]))))
    elif sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(int(sys.argv[2]))))
    else:
        for mib in [int(a) for a in sys.argv[1:]] or SIZES:
            done = subprocess.run([sys.executable, __file__, "--one", str(mib)], check=True, stdout=subprocess.PIPE, text=True)
            found = json.loads(done.stdout)
            print("   ".join(f"{key} {value:,.1f}" for key, value in found.items()))


if __name__ == "__main__":
    main()
