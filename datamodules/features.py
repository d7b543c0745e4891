"""What a frozen vision encoder sees of the training images, kept on disk: encoded once, read at every visit, by every run.

A folder holds `features.json` (the shapes) and shards, each the features of some images one after the other in half precision, so that
one read brings an image's whole pyramid. Shards are written whole or not at all: what is interrupted goes on with those that are missing,
and several processes may fill one folder.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm.auto import tqdm

from components.batch import Batch, Pyramid
from components.preprocess import Preprocess
from components.registry import ConfigError
from datamodules.collate import Collate
from datamodules.datasets.base import Samples
from datamodules.samples import RoiSample

VERSION = "1"  # of the files' form
SHARD = 256 * 2**20  # bytes, about
DAY = 86_400  # seconds
ROOM = 0.98  # share of the free disk that may be taken
Precompute = Callable[[Batch], Batch]


def fingerprint(encoder: nn.Module, preprocess: Preprocess, data: Mapping[str, Any]) -> str:
    """Changes whenever features would: with the encoder's architecture or weights, with what it is shown, or with the data (`describe`)."""
    shown = {key: value for key, value in asdict(preprocess).items() if key != "native"}  # which says nothing of what an encoder sees
    said = json.dumps([VERSION, str(encoder), shown, data], sort_keys=True)
    digest = hashlib.sha256(said.encode())
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Features:
    """The features of `count` images in a folder, complete or not.

    Attributes:
        shapes: (C, H, W) of each level of the pyramid.
    """

    folder: Path
    count: int
    shapes: tuple[tuple[int, int, int], ...]

    @property
    def bytes_each(self) -> int:
        """Of an image."""
        return 2 * sum(map(math.prod, self.shapes))

    @property
    def images_each(self) -> int:
        """Of a shard."""
        return max(1, SHARD // self.bytes_each)

    def images(self, shard: int) -> range:
        """Which images a shard holds."""
        return range(shard * self.images_each, min((shard + 1) * self.images_each, self.count))

    def path(self, shard: int) -> Path:
        """Where a shard is, or will be."""
        return self.folder / f"{shard:06d}.f16"

    def missing(self) -> list[int]:
        """The shards that are not there."""
        return [shard for shard in range(-(-self.count // self.images_each)) if not self.path(shard).exists()]

    def read(self, index: int) -> tuple[Tensor, ...]:
        """The pyramid of an image, (C_l, H_l, W_l) float16 each. Opens the file anew, so that no process holds more than it reads."""
        shard, place = divmod(index, self.images_each)
        row = np.fromfile(self.path(shard), np.float16, self.bytes_each // 2, offset=place * self.bytes_each)
        if len(row) * 2 < self.bytes_each:
            raise ValueError(f"{self.path(shard)} ends before image {index}: it was not written by this code. Delete it; it is made again")
        parts = torch.from_numpy(row).split([math.prod(shape) for shape in self.shapes])
        return tuple(part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=True))

    def tidy(self) -> None:
        """Removes what processes that were killed left of shards; a draft that nobody has written to for a day is nobody's."""
        for draft in self.folder.glob("*.draft"):
            if time.time() - draft.stat().st_mtime > DAY:
                draft.unlink(missing_ok=True)

    def write(self, shard: int, pyramids: Sequence[Pyramid]) -> None:
        """Writes a shard atomically: the pyramids of its images, in batches."""
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = self.path(shard).with_suffix(f".{os.getpid()}.draft")
        try:
            with draft.open("wb") as file:
                for pyramid in pyramids:
                    file.write(torch.cat([m.flatten(1) for m in pyramid.maps], 1).cpu().numpy().tobytes())
            draft.replace(self.path(shard))
        finally:
            draft.unlink(missing_ok=True)


def open_features(folder: Path, samples: Samples, collate: Collate, precompute: Precompute) -> Features:
    """The features of `samples` in `folder`; where it is new, the first image is encoded to learn the shapes."""
    path = folder / "features.json"
    if not path.exists():
        pyramid = precompute(collate.pixels([samples[0]])).pyramid
        assert pyramid is not None
        folder.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}.draft")
        draft.write_text(json.dumps([list(m.shape[1:]) for m in pyramid.maps]))
        draft.replace(path)
    shapes = tuple((c, h, w) for c, h, w in json.loads(path.read_text()))
    return Features(folder, len(samples), shapes)


def fill(
    features: Features,
    samples: Samples,
    collate: Collate,
    precompute: Precompute,
    *,
    batch_size: int,
    workers: int = 0,
    share: tuple[int, int] = (0, 1),
) -> None:
    """Encodes the images of all missing shards, or of those whose number leaves the remainder `share[0]` when divided by `share[1]`.

    Shares go by the numbers of shards, not by places among the missing ones: those change while others write.

    Raises:
        ConfigError: the disk has no room for what is missing.
    """
    todo = [shard for shard in features.missing() if shard % share[1] == share[0]]
    if not todo:
        return
    features.tidy()
    told = _check_room(features)
    first = share[0] == 0  # one of those that share the work speaks for all
    if first:
        print(f"trainer.cache_features: {told}")
    total = sum(len(features.images(s)) for s in todo)
    with tqdm(total=total, unit="image", desc=f"encoding images to {features.folder}", disable=not first) as bar:
        for shard in todo:
            loader: DataLoader[Any] = DataLoader(
                Subset(samples, features.images(shard)),  # type: ignore[arg-type]
                batch_size,
                collate_fn=collate.pixels,
                num_workers=workers,
            )
            pyramids = []
            for batch in loader:
                seen = precompute(batch).pyramid
                assert seen is not None
                pyramids.append(seen.to("cpu"))
                bar.update(len(batch.images))
            features.write(shard, pyramids)


def _check_room(features: Features) -> str:
    """What is missing, what it will take, and what is free, in words."""
    missing = sum(len(features.images(s)) for s in features.missing())
    free = shutil.disk_usage(features.folder).free
    told = f"{missing:,} images of {features.bytes_each / 2**20:.2f} MiB each need {missing * features.bytes_each / 2**30:.2f} GiB"
    if missing * features.bytes_each > ROOM * free:
        raise ConfigError(
            f"trainer.cache_features: {told} in {features.folder}, and {free / 2**30:.2f} GiB are free there: set it to off, set "
            "data.cache to another disk, or lower data.train"
        )
    return f"{told} in {features.folder} ({free / 2**30:.2f} GiB are free)"


class Kept(Dataset[tuple[RoiSample, tuple[Tensor, ...]]]):
    """Item i is sample i with its features; `KeptCollate` makes training batches of them."""

    def __init__(self, samples: Samples, features: Features) -> None:
        self.samples, self.features = samples, features

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[RoiSample, tuple[Tensor, ...]]:
        return self.samples[index], self.features.read(index)


class KeptCollate:
    """Samples with features -> a `Batch` as `precompute` gives it, without preparing the images."""

    def __init__(self, collate: Collate) -> None:
        self.collate = collate

    def __call__(self, items: Sequence[tuple[RoiSample, tuple[Tensor, ...]]]) -> Batch:
        samples, maps = zip(*items, strict=True)
        return self.collate.regions(samples, Pyramid(tuple(map(torch.stack, zip(*maps, strict=True)))))
