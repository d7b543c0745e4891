"""python benchmarks/app_latency.py [model ...] [--megapixels N]: in the page, a region of an image that is uploaded, one more, and the map.

Serves the page and asks it over HTTP as a browser does. "First" is from sending a photograph (JPEG, 600 x 400 pixels, or as many as are
asked for) to the answers about the region that is clicked on as soon as the picture is there: upload, decoding, drawing, encoding, reading,
superpixels. "Further" is from a click to its answers and the new picture, the mean of eight; "map" until the maps of quality and importance
are shown. Files for downloads, which follow by themselves, are waited for before the next step and said apart. "Without HTTP" is what of
first and further the same steps take when they are called directly.

Without a model it is three compositions with random weights: quickstart's; the published one with a small vision encoder
(`benchmarks/regions_per_image.py`, a prefix of 1,098 tokens, a language model of width 512 and eight layers); and the same with the
published vision encoder (ConvNeXt-L at 512 pixels) and region extractor. Prints the ratios.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import secrets
import socket
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import torch
from PIL import Image
from skimage import data

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from app import QUIET
from benchmarks.regions_per_image import NODE
from components.scorers.base import SCORERS
from configs.schema import load_config
from inference.engine import Engine, load
from inference.page import layout
from inference.page.answers import cards
from inference.page.limits import Limits
from inference.page.service import Service

CLICKS = 8
PATIENCE = 600  # seconds
EXTRACTOR = {"plugin": "mfe"}  # of the published widths
ENCODER = {"plugin": "clip_convnext"}


class Visitor:
    """What a browser sends and reads: one stream of what the server says, and as many requests as it likes.

    Args:
        blocks: the page that is served at `url`.
    """

    def __init__(self, url: str, blocks: Any) -> None:
        self.numbers = {fn.name: number for number, fn in blocks.fns.items()}
        self.session, self.client = secrets.token_hex(6), httpx.Client(base_url=f"{url}gradio_api/", timeout=PATIENCE)
        self.said: defaultdict[str, Future[dict[str, Any]]] = defaultdict(Future)  # by the event's number
        self.waiting, self.turn, self.listener = 0, threading.Lock(), threading.Thread()

    def upload(self, name: str, content: bytes) -> dict[str, Any]:
        """Sends a file -> what the page's events call it."""
        (path,) = self.client.post("upload", files={"files": (name, content)}).raise_for_status().json()
        return {"path": path, "orig_name": name, "size": len(content), "meta": {"_type": "gradio.FileData"}}

    def asks(self, event: str, given: Sequence[Any], told: Mapping[str, Any] | None = None) -> Future[dict[str, Any]]:
        """Has an event of the page happen, with the values of its inputs."""
        asked = {"data": given, "event_data": told, "fn_index": self.numbers[event], "session_hash": self.session}
        number = self.client.post("queue/join", json=asked).raise_for_status().json()["event_id"]
        with self.turn:
            self.waiting += 1
            if not self.listener.is_alive():
                self.listener = threading.Thread(target=self.listens, daemon=True)
                self.listener.start()
            return self.said[number]

    def listens(self) -> None:
        """Until nothing is waited for."""
        while True:
            with self.client.stream("GET", "queue/data", params={"session_hash": self.session}) as stream:
                for line in stream.iter_lines():
                    message = json.loads(line.removeprefix("data:")) if line else {}
                    if message.get("msg") != "process_completed":
                        continue
                    with self.turn:
                        self.waiting -= 1
                        self.said[message["event_id"]].set_result(message)
                        if not self.waiting:
                            self.listener = threading.Thread()
                            return

    def happens(self, event: str, given: Sequence[Any], told: Mapping[str, Any] | None = None) -> list[Any]:
        """As `asks` -> the values of the event's outputs.

        Raises:
            RuntimeError: the page refuses, and says why.
        """
        message = self.asks(event, given, told).result(PATIENCE)
        if not message["success"]:
            raise RuntimeError(message["output"]["error"])
        return list(message["output"]["data"])

    def fetch(self, file: Mapping[str, Any]) -> bytes:
        """A file that an event gave out."""
        return self.client.get(file["url"]).raise_for_status().content

    def opens(self, content: bytes) -> Future[dict[str, Any]]:
        """Uploads an image and looks at it -> the page's own next step, encoding, beside which the visitor may go on."""
        picture = self.happens("_opened", [self.upload("coffee.jpg", content), None])[3]
        encoding = self.asks("_looked", [None])
        self.fetch(picture)
        return encoding

    def clicks(self, x: float, y: float) -> str:
        """Clicks on the picture and looks at it again -> the answers as HTML."""
        _, picture, answers, *_ = self.happens("_clicked", [None, "Click a point"], {"index": [x, y], "value": None})
        self.fetch(picture)
        return str(answers)


@contextlib.contextmanager
def served(engine: Engine) -> Iterator[tuple[str, Any]]:
    """The page of a model: where it is, and its parts."""
    with socket.socket() as probe, tempfile.TemporaryDirectory() as folder:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        os.environ.update(QUIET, GRADIO_TEMP_DIR=folder)
        limits = Limits()
        blocks = layout.page(Service({"model": engine}, limits), {}, Path(folder))
        try:
            yield layout.serve(blocks, "127.0.0.1", port, limits, Path(folder), []), blocks
        finally:
            blocks.close(verbose=False)


def places(width: float, height: float) -> list[tuple[float, float]]:
    """Where the further clicks go."""
    return [(width * (n + 0.5) / CLICKS, height * (0.2 + 0.6 * (n % 2))) for n in range(CLICKS)]


class Times(NamedTuple):
    """Seconds of a first region, of a further one, of the files that follow it, of the map, and of its file."""

    first: float
    further: float
    files: float
    map: float
    map_file: float


def by_http(engine: Engine, content: bytes, size: tuple[int, int]) -> Times:
    """What a visitor waits for."""
    width, height = size
    with served(engine) as (url, blocks):
        warm = Visitor(url, blocks)
        warm.opens(content).result(PATIENCE)
        warm.clicks(5, 5)
        visitor = Visitor(url, blocks)
        start = time.perf_counter()
        encoding = visitor.opens(content)
        answers = visitor.clicks(width / 2, height / 2)
        first = time.perf_counter() - start
        encoding.result(PATIENCE)
        visitor.happens("_files", [None])
        further = files = 0.0
        for n, (x, y) in enumerate(places(width, height), 2):
            start = time.perf_counter()
            answers = visitor.clicks(x, y)
            further += (time.perf_counter() - start) / CLICKS
            assert answers.count('class="roi-card"') == n
            start = time.perf_counter()
            visitor.happens("_files", [None])
            files += (time.perf_counter() - start) / CLICKS
        start = time.perf_counter()
        shown = str(visitor.happens("_mapped", [None])[2])
        mapped = time.perf_counter() - start
        assert shown.count("<figure") == 2
        start = time.perf_counter()
        visitor.happens("_map_files", [None])
    return Times(first, further, files, mapped, time.perf_counter() - start)


def directly(engine: Engine, content: bytes, size: tuple[int, int]) -> tuple[float, float]:
    """Seconds of a first region and of a further one, on the server alone."""
    service = Service({"model": engine}, Limits())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "coffee.jpg"
        path.write_bytes(content)
        start = time.perf_counter()
        visit = service.open(path)
        service.picture(visit)
        found = []
        for x, y in [(size[0] / 2, size[1] / 2), *places(*size)]:
            service.point(visit, *service.place(visit, (x, y)))
            service.picture(visit)
            cards(visit, service.models, service.tasks)
            found.append(time.perf_counter() - start)
            start = time.perf_counter()
    return found[0], sum(found[1:]) / CLICKS


def photograph(megapixels: float | None) -> Image.Image:
    """A cup of coffee, 600 x 400 pixels, or enlarged to about as many million as are asked for."""
    image = Image.fromarray(data.coffee())
    if megapixels is None:
        return image
    side = (megapixels * 1e6 / 6) ** 0.5
    return image.resize((int(3 * side), int(2 * side)), Image.Resampling.BICUBIC)


def measure(name: str, engine: Engine, megapixels: float | None = None) -> float:
    """Prints what a model takes, and returns how long a further region takes, as a share of the first."""
    image, buffer = photograph(megapixels), io.BytesIO()
    image.save(buffer, "JPEG", quality=92)
    shown = layout.draw.shown_size((image.height, image.width))
    took = by_http(engine, buffer.getvalue(), shown[::-1])
    alone = directly(engine, buffer.getvalue(), shown[::-1])
    share = took.further / took.first
    print(
        f"{name}, {image.width} x {image.height}: first {took.first:.3f} s, further {took.further:.3f} s, {share:.3f} of the first; "
        f"files {took.files:.3f} s after it; map {took.map:.3f} s, its file {took.map_file:.3f} s after it; "
        f"without HTTP {alone[0]:.3f} and {alone[1]:.3f} s, {alone[1] / alone[0]:.3f}",
        flush=True,
    )
    return share


def compositions() -> Iterator[tuple[str, Engine]]:
    """One after another, with random weights."""
    small = load_config("quickstart").model
    wide = {**NODE, "vision_encoder": ENCODER, "region_extractor": EXTRACTOR}
    for name, node in (("quickstart's", small), ("published prefix, small encoder", NODE), ("published encoder and extractor", wide)):
        torch.manual_seed(0)
        scorer = SCORERS.build(node)
        if node is small:
            scorer.load_pretrained()
        yield name, Engine(scorer.eval())


def main(argv: Sequence[str] | None = None) -> list[float]:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="model", help="a run's folder or a saved model; none: three compositions")
    parser.add_argument("--megapixels", type=float, metavar="N", help="of the photograph, 24 at most (default: 600 x 400 pixels)")
    args = parser.parse_args(argv)
    given = ((model, load(model, "cpu")) for model in args.models) if args.models else compositions()
    return [measure(name, engine, args.megapixels) for name, engine in given]


if __name__ == "__main__":
    main()
