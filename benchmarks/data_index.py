"""python benchmarks/data_index.py [MIB ...]: the speed and memory of `prepare.py index` on generated data of realistic shape.

Each size is a folder as it is downloaded: label files, and an archive for each type and setting that holds every reference (a few bytes in
place of an image, for `index` reads the archives' directories alone). The command runs as its users run it, in a process of its own on one
thread, and what the system says of that process is told: processor time, and the peak of its memory. Rates are of the score file's bytes.
The whole command starts Python and its libraries, reads both label files, joins them, writes the tables, looks for every image and sums up;
what starting takes, which does not grow with the files, is measured beside it, and the second rate is without. Flat memory shows in the
peaks of the sizes. Generating 1 GiB takes a minute or two, and 1.5 GiB of disk, which is given back.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from components import rle
from components.prompts import DISTORTION_TYPES

ROOT = Path(__file__).resolve().parents[1]
REGIONS, SETTINGS = 34, 20  # of an image, of a type of distortion: as published
HEIGHT, WIDTH = 512, 768
SIZES = (128, 1024)  # MiB of the score file

STARTS = "import prepare, datamodules.seagull_100w, datamodules.rows, pyarrow; pyarrow.array([0])"  # with which pyarrow imports pandas


def write_labels(folder: Path, mib: float) -> tuple[int, int, int]:
    """Scores of `mib` MiB, about 177 bytes a region and version as published, and their masks. Returns the sizes in bytes, of masks and of
    scores, and the number of references."""
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
    return masks.stat().st_size, scores.stat().st_size, reference


def write_archives(folder: Path, references: int) -> None:
    """Of every type and setting, and of the references themselves."""
    names = [(f"Dist.Images/{kind.capitalize()}", f"{kind.capitalize()}_{n}") for kind in DISTORTION_TYPES for n in range(SETTINGS)]
    for above, name in [*names, (".", "Ref.Images")]:
        path = folder / above / f"{name}.zip"
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w") as archive:
            for reference in range(references):
                archive.writestr(zipfile.ZipInfo(f"{name}/{reference:06d}.png"), b"image")


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


_TELLS = """
import atexit, pathlib, runpy, sys
from lightning_modules.resident import resident_peak
atexit.register(lambda told=sys.argv[1]: pathlib.Path(told).write_text(str(resident_peak())))
sys.argv = sys.argv[2:]
exec(sys.argv[1]) if sys.argv[0] == "-c" else runpy.run_path(sys.argv[0], run_name="__main__")
"""


def watched(command: Sequence[str]) -> tuple[float, float, float]:
    """Runs Python with these arguments: its processor seconds, its seconds by the clock, and the peak of its memory in MiB.

    Raises:
        RuntimeError: it failed.
    """
    one = {**os.environ, "PYTHONPATH": str(ROOT), **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")}
    with tempfile.TemporaryFile() as said, tempfile.NamedTemporaryFile() as told:
        start = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-c", _TELLS, told.name, *command], env=one, stdout=subprocess.DEVNULL, stderr=said)
        _, status, used = os.wait4(process.pid, 0)  # which counts in this process's own peak
        wall, process.returncode = time.perf_counter() - start, os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise RuntimeError(f"{' '.join(command)} ended with status {process.returncode}: {said.read().decode()[-2000:]}")
        peak = int(told.read())
    return used.ru_utime + used.ru_stime, wall, peak / 2**20


def measure(mib: float) -> dict[str, float]:
    """One size; what it writes is removed."""
    start, _, begun = watched(["-c", STARTS])
    with tempfile.TemporaryDirectory() as name:
        folder, out = Path(name) / "data", Path(name) / "out"
        masks, scores, references = write_labels(folder, mib)
        write_archives(folder, references)
        cpu, wall, peak = watched([str(ROOT / "prepare.py"), "index", str(folder), str(out)])
        made = json.loads((out / "data.json").read_text())
        size = sum(p.stat().st_size for p in out.glob("*.parquet"))
    return {
        "scores_mib": scores / 2**20,
        "masks_mib": masks / 2**20,
        "archives": len(made["archives"]),
        "images": made["counts"]["images"],
        "regions": made["counts"]["regions"],
        "bytes_per_region_in": scores / made["counts"]["regions"],
        "bytes_per_region_out": size / made["counts"]["regions"],
        "cpu_seconds": cpu,
        "start_cpu_seconds": start,
        "mb_per_cpu_second": scores / 1e6 / cpu,
        "mb_per_cpu_second_without_start": scores / 1e6 / (cpu - start),
        "mb_per_second": scores / 1e6 / wall,
        "peak_mib": peak,
        "start_peak_mib": begun,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Prints a line for each size."""
    for mib in [float(a) for a in (sys.argv[1:] if argv is None else argv)] or SIZES:
        print("   ".join(f"{key} {value:,.2f}" for key, value in measure(mib).items()), flush=True)


if __name__ == "__main__":
    main()
