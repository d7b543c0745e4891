"""python benchmarks/app_latency.py [model ...]: in the page, a region of an image that was just opened, against one more region of it.

Goes through what a click goes through on the server: the region around a point by superpixels, the answers to all questions, the picture
drawn, the answers laid out. "first" includes encoding the image; "further" is the mean of eight more clicks. Without a model it is the
published composition of `benchmarks/regions_per_image.py` (a prefix of 1,098 tokens, random weights), with its small language model and
with one of twice its width: the larger the model, the less the drawing counts. Prints the ratios.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from skimage import data

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.regions_per_image import NODE
from components.scorers.base import SCORERS
from inference.engine import Engine, load
from inference.page.answers import cards
from inference.page.limits import Limits
from inference.page.service import Service
from inference.page.visit import Visit

CLICKS = 8


def clicked(service: Service, visit: Visit, x: float, y: float) -> float:
    """Seconds from a click to what is sent back."""
    start = time.perf_counter()
    service.point(visit, x, y)
    service.picture(visit)
    cards(visit, service.models, service.tasks)
    return time.perf_counter() - start


def measure(name: str, engine: Engine) -> float:
    """Prints what a model takes, and returns how long a further region takes, as a share of the first."""
    service = Service({name: engine}, Limits())
    image = data.coffee()
    height, width = image.shape[:2]
    clicked(service, Visit("warm", image), 5, 5)
    visit = Visit("coffee", image)
    first = clicked(service, visit, width / 2, height / 2)
    places = [(width * (n + 0.5) / CLICKS, height * (0.2 + 0.6 * (n % 2))) for n in range(CLICKS)]
    further = sum(clicked(service, visit, x, y) for x, y in places) / CLICKS
    print(f"{name}: first {first:.3f} s, further {further:.3f} s, {further / first:.3f} of the first", flush=True)
    return further / first


def main(models: list[str]) -> list[float]:
    """See the module."""
    if models:
        return [measure(model, load(model, "cpu")) for model in models]
    ratios = []
    for width in (512, 1024):
        torch.manual_seed(0)
        llm = {**NODE["llm"], "config": {**NODE["llm"]["config"], "hidden_size": width, "intermediate_size": width * 43 // 16}}
        ratios.append(measure(f"published composition, random weights, width {width}", Engine(SCORERS.build({**NODE, "llm": llm}).eval())))
    return ratios


if __name__ == "__main__":
    main(sys.argv[1:])
