"""python benchmarks/folder_throughput.py [images] [--pictures]: where the time goes when a folder of photographs is scored.

Photographs of 1,024 x 768 pixels as JPEG, eight boxes in each, scored by `predict.main` with `--out`: a SEAGULL of the composition that
quickstart trains, with random weights. All that happens between the model's being read and the end counts: decoding, drawing masks,
cutting crops, the model, writing rows and the file. The model's time is what passes while it encodes, reads and answers, measured around
its two calls. "defaults" is what a user gets here, where a quarter of the cores, one at least, makes the next images ready; "in turn" makes
each ready in its turn, with all cores for whatever is done, and "one thread" the same with one. The three take turns, in one run. Readers
take cores from the model: where reading ahead makes its seconds an image grow, the share of its time says less, and images a second count.

With `--pictures` the photographs are a folder, and what is measured is what pictures cost: the boxes with and without `--overlay`, all that
superpixels find with and without it, and `--map`. From eight images on they are drawn by processes beside the model.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image
from skimage import data

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import predict
from components.scorers.base import SCORERS, Scorer
from configs.schema import load_config
from inference.engine import Engine

BOXES = [(40 + 110 * n, 60 + 70 * n, 180, 140) for n in range(8)]


THREADS = torch.get_num_threads()
MODES = {"defaults": (THREADS, ()), "in turn": (THREADS, ("--readers", "0")), "one thread": (1, ("--readers", "0"))}
_BOXED = tuple(f"--box={','.join(map(str, box))}" for box in BOXES)
PICTURES = {
    "boxes": _BOXED,
    "boxes, --overlay": (*_BOXED, "--overlay", "drawn"),
    "--propose": ("--propose",),
    "--propose --overlay": ("--propose", "--overlay", "drawn"),
    "--map": ("--map", "drawn"),
}
TOGETHER = 16  # images of each mode before the next has its turn


class Clocked(Engine):
    """An engine that adds up the seconds that the model works, and knows when it was built, which is when the model has been read."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.model, self.begun, self.threads = 0.0, time.perf_counter(), 0

    def look(self, *args: Any, **kwargs: Any) -> Any:
        return self._clocked(super().look, *args, **kwargs)

    def answer(self, *args: Any, **kwargs: Any) -> Any:
        return self._clocked(super().answer, *args, **kwargs)

    def _clocked(self, do: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        begun, self.threads = time.perf_counter(), torch.get_num_threads()
        out = do(*args, **kwargs)
        self.model += time.perf_counter() - begun
        return out


def write_photographs(folder: Path, count: int) -> list[Path]:
    """Pieces of real photographs, as files."""
    photographs = [data.coffee(), data.chelsea(), data.astronaut(), data.rocket()]
    rng, paths = np.random.default_rng(0), []
    for n in range(count):
        image = Image.fromarray(np.ascontiguousarray(np.rot90(photographs[n % 4], 2 * (n % 2)))).resize((1024, 768))
        noisy = np.asarray(image) + rng.normal(0, 4, (768, 1024, 3))
        paths.append(folder / f"{n:04}.jpg")
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=92)
    return paths


def predicted(scorer: Scorer, paths: Sequence[Path], out: Path, mode: str) -> tuple[float, float, int]:
    """Seconds of `predict.main` from where the model has been read, those that it worked, and its threads; `out` holds the rows."""
    threads, options = MODES[mode]
    manifest = out.with_suffix(".manifest.jsonl")
    manifest.write_text("".join(json.dumps({"image": str(path), "box": box}) + "\n" for path in paths for box in BOXES))
    return clocked(scorer, [str(manifest), "--out", str(out), *options], threads)


def clocked(scorer: Scorer, asked: Sequence[str], threads: int) -> tuple[float, float, int]:
    """As `predicted`, of any prediction."""
    engines: list[Clocked] = []

    def built(*args: Any, **kwargs: Any) -> Clocked:
        engines.append(Clocked(*args, **kwargs))
        return engines[0]

    torch.set_num_threads(threads)
    with (
        mock.patch.object(predict, "located", return_value=Path("benchmark")),
        mock.patch.object(predict, "load", return_value=scorer),
        mock.patch.object(predict, "Engine", built),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        predict.main(["benchmark", *asked, "--overwrite", "--strict"])
        ended = time.perf_counter()
    return ended - engines[0].begun, engines[0].model, engines[0].threads


def measure(scorer: Scorer, folder: Path, count: int) -> dict[str, tuple[float, float, int]]:
    """Of each mode: its seconds, those that the model worked, and its threads."""
    paths = write_photographs(folder, count)
    found = dict.fromkeys(MODES, (0.0, 0.0, 0))
    for mode in MODES:
        predicted(scorer, paths[:2], folder / f"warm {mode}.csv", mode)
    for at in range(0, count, TOGETHER):
        for mode, (wall, model, _) in found.items():
            more = predicted(scorer, paths[at : at + TOGETHER], folder / f"{mode} {at}.csv", mode)
            found[mode] = wall + more[0], model + more[1], more[2]
    return found


def measure_pictures(scorer: Scorer, folder: Path, count: int) -> dict[str, tuple[float, float, int]]:
    """As `measure`, of the sorts of pictures."""
    (folder / "images").mkdir()
    write_photographs(folder / "images", count)
    found = {}
    for mode, options in PICTURES.items():
        placed = [str(folder / mode) if option == "drawn" else option for option in options]
        found[mode] = clocked(scorer, [str(folder / "images"), "--out", str(folder / f"{mode}.csv"), *placed], THREADS)
    return found


def main(argv: Sequence[str] | None = None, scorer: Scorer | None = None) -> None:
    """See the module."""
    said = sys.argv[1:] if argv is None else argv
    pictures, numbers = "--pictures" in said, [word for word in said if word != "--pictures"]
    count = int(numbers[0]) if numbers else 64
    torch.manual_seed(0)
    if scorer is None:
        scorer = SCORERS.build(load_config("quickstart").model)
        scorer.load_pretrained()
    with tempfile.TemporaryDirectory() as folder:
        found = (measure_pictures if pictures else measure)(scorer.eval(), Path(folder), count)
    torch.set_num_threads(THREADS)
    for mode, (wall, model, used) in found.items():
        rates = f"{count / wall:.1f} images" + ("" if pictures else f" and {len(BOXES) * count / wall:.0f} regions") + " a second"
        threads = f"{used} thread{'s' * (used > 1)}"
        print(f"{mode} ({threads}): {rates}; the model works {model / wall:.1%} of the time, {model / count:.2f} s an image")
    if not pictures:
        print(f"reading ahead: {found['in turn'][0] / found['defaults'][0]:.2f} times as fast as in turn")


if __name__ == "__main__":
    main()
