"""python benchmarks/synthesis.py [photographs]: how fast data is made, and where the time goes.

Makes data of the photographs of a folder (default: those embedded in scikit-image, scikit-learn and matplotlib) in a temporary folder, in
both modes, on one thread of this process and on two processes. Prints images/s and regions/s, by the clock and by the CPU's, the shares of
the stages, and how much longer the importance of an image's regions takes if the whole image is compared for each.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from components.mask_encoders.base import MASK_ENCODERS
from components.registry import configured
from datamodules.datasets.photographs import Photographs
from datamodules.distortions.base import DISTORTIONS
from datamodules.engines.base import one_thread
from datamodules.proposals import propose_regions
from datamodules.quality_labels.base import QUALITY_LABELS, QualityLabel
from datamodules.references import Reference, file_hash, read_reference
from datamodules.synthesis_job import Synthesis


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without bars and reports."""
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        yield


def made(photographs: Path, title: str, **options: Any) -> dict[str, Any]:
    """Makes data and prints rates and shares; returns what the job says."""
    with tempfile.TemporaryDirectory() as folder:
        start, cpu_start = time.perf_counter(), time.process_time()
        with quietly():
            data = configured(Synthesis, {"val": 0, "test": 0, **options}, "benchmark")(photographs, Path(folder) / "data").run()
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    images, regions = data["counts"]["images"], data["counts"]["regions"]
    total = sum(data["seconds"].values())
    shares = ", ".join(f"{stage} {spent / total:.0%}" for stage, spent in data["seconds"].items())
    rate = f"{images / seconds:.1f} images/s, {regions / seconds:.0f} regions/s"
    if "workers" not in options["engine"]:
        rate += f" ({images / cpu_seconds:.1f} and {regions / cpu_seconds:.0f} by CPU time)"
    print(f"{title}: {images} images, {rate}; {shares}", flush=True)
    return dict(data)


def cpu(do: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of the faster of two runs, and what it gave."""
    best, out = float("inf"), None
    for _ in range(2):
        start = time.process_time()
        out = do()
        best = min(best, time.process_time() - start)
    return best, out


def importance(photograph: Path, size: int) -> float:
    """Around the regions against the whole image for each; returns how far the two are apart at most."""
    found_file = Reference(0, photograph.name, "", "train", 0, file_hash(photograph))
    reference = read_reference(photograph.parent, found_file, size).image
    encoder = MASK_ENCODERS.build({"plugin": "superpixel"})
    label = QUALITY_LABELS.build({"plugin": "local_similarity"})
    _, masks = propose_regions(reference, encoder, 10, 24, 0.015, np.random.default_rng(0))
    distorted = DISTORTIONS.build({"plugin": "blur"})(reference, 8)
    with one_thread():
        full, expected = cpu(lambda: QualityLabel.label(label, distorted, reference, masks))
        around, found = cpu(lambda: label.label(distorted, reference, masks))
        judged = label.against(reference, masks)
        against, same = cpu(lambda: judged(distorted))
    apart = max(np.abs(np.stack(x) - np.stack(expected)).max() for x in (found, same))
    size_said = f"{reference.shape[1]} x {reference.shape[0]} pixels"
    print(f"{len(masks)} regions of {size_said}, mean area {masks.mean():.0%}: the whole image for each takes")
    print(f"  {full / around:.1f} times as long as around each, {full / against:.1f} times as long as against one reference; ", end="")
    print(f"at most {apart:.0e} apart", flush=True)
    return float(apart)


def main(argv: Sequence[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path, nargs="?")
    parser.add_argument("--size", type=int, default=512, help="shorter side, pixels")
    parser.add_argument("--images", type=int, default=120, help="of mode mixed")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        root = args.photographs
        if root is None:
            root = Path(folder)
            for photograph in (p for found in Photographs().photographs.values() for p in found):
                shutil.copy(photograph.path, root / photograph.path.name)
        print(f"{os.cpu_count()} cores, shorter side {args.size} pixels")
        mixed = {"mode": "mixed", "images": args.images, "size": args.size}
        made(root, "mixed, inline", **mixed, engine={"plugin": "inline"})
        made(root, "mixed, several=3, inline", **mixed, several=3, engine={"plugin": "inline"})
        made(root, "mixed, 2 processes", **mixed, engine={"plugin": "processes", "workers": 2})
        with tempfile.TemporaryDirectory() as one:
            first = sorted(p for p in root.rglob("*") if p.is_file())[0]
            shutil.copy(first, one)
            made(Path(one), "seagull_100w of one photograph, inline", size=args.size, engine={"plugin": "inline"})
            importance(Path(one) / first.name, args.size)


if __name__ == "__main__":
    main()
