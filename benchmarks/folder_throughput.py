"""python benchmarks/folder_throughput.py [images]: where the time goes when a folder of photographs is scored.

Photographs of 1,024 x 768 pixels as JPEG, eight boxes in each, a SEAGULL of the composition that quickstart trains, with random weights, on
one thread: several wait for each other where other work runs. The model's time is what passes while it encodes, reads and answers, measured
around its two calls; the rest is decoding, drawing masks, cutting crops and writing rows. "Read ahead" is what `predict.py` does with two
readers, its choice beside a GPU, "in turn" makes each image ready only when the one before is done, as it does where the model takes all
cores. Both in turns, in one run. Readers take cores from the model: where reading ahead makes its seconds an image grow, the share of its
time says less.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from skimage import data

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from components.scorers.base import SCORERS
from configs.schema import load_config
from inference.engine import Engine
from inference.predict import Predictor
from inference.requests import Asked, Request

BOXES = [(40 + 110 * n, 60 + 70 * n, 180, 140) for n in range(8)]


class Clocked(Engine):
    """An engine that adds up the seconds that the model works."""

    model = 0.0

    def look(self, *args: Any, **kwargs: Any) -> Any:
        return self._clocked(super().look, *args, **kwargs)

    def answer(self, *args: Any, **kwargs: Any) -> Any:
        return self._clocked(super().answer, *args, **kwargs)

    def _clocked(self, do: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        begun = time.perf_counter()
        out = do(*args, **kwargs)
        self.model += time.perf_counter() - begun
        return out


def write_photographs(folder: Path, count: int) -> list[Request]:
    """Pieces of real photographs, as files."""
    photographs = [data.coffee(), data.chelsea(), data.astronaut(), data.rocket()]
    rng, requests = np.random.default_rng(0), []
    for n in range(count):
        image = Image.fromarray(np.ascontiguousarray(np.rot90(photographs[n % 4], 2 * (n % 2)))).resize((1024, 768))
        noisy = np.asarray(image) + rng.normal(0, 4, (768, 1024, 3))
        path = folder / f"{n:04}.jpg"
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=92)
        requests.append(Request(path.name, path, tuple(Asked(f"box {i}", "box", box) for i, box in enumerate(BOXES))))
    return requests


def main() -> None:
    """See the module."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 64
    scorer = SCORERS.build(load_config("quickstart").model)
    scorer.load_pretrained()
    with tempfile.TemporaryDirectory() as folder:
        requests = write_photographs(Path(folder), count)
        engine = Clocked(scorer.eval())
        predictor = Predictor(engine, engine.tasks, readers=2)
        list(predictor(requests[:4]))  # warm
        found: dict[str, list[float]] = {"read ahead": [0.0, 0.0], "in turn": [0.0, 0.0]}
        for at in range(0, count, 16):
            some = requests[at : at + 16]
            for name, run in (("read ahead", lambda s=some: list(predictor(s))), ("in turn", lambda s=some: [predictor.one(r) for r in s])):
                engine.model, begun = 0.0, time.perf_counter()
                run()
                found[name][0] += time.perf_counter() - begun
                found[name][1] += engine.model
    for name, (wall, model) in found.items():
        rates = f"{count / wall:.1f} images and {8 * count / wall:.0f} regions a second"
        print(f"{name}: {rates}; the model works {model / wall:.1%} of the time, {model / count:.2f} s an image")
    print(f"reading ahead: {found['in turn'][0] / found['read ahead'][0]:.2f} times as fast")


if __name__ == "__main__":
    main()
