"""The embedded default: real photographs that ship inside well-known packages (or any folder), distorted and labelled here.

Samples are drawn from a seed: sample i of a split is the same on every machine with the same libraries, whether it is made on
the fly or read from the cache. Photographs never cross splits; dead-leaves images join the training split alone.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import warnings
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from components.mask_encoders.base import MASK_ENCODERS, MaskEncoder
from components.registry import ConfigError, Part
from datamodules.datasets.base import DATASETS, RoiDataset, Samples
from datamodules.distortions.base import DISTORTIONS
from datamodules.engines.base import Engine, Made, Work
from datamodules.engines.inline import Inline
from datamodules.engines.processes import Processes
from datamodules.images import ImageError, list_images, load_image
from datamodules.looks import relook
from datamodules.making import identity, make_all
from datamodules.procedural import dead_leaves
from datamodules.quality_labels.base import QUALITY_LABELS, QualityLabel
from datamodules.records import SPLITS, ImageRecord, Split, encode_png
from datamodules.samples import RoiSample
from datamodules.synthesis import Recipe, synthesize
from datamodules.tables import VERSION as SCHEMA_VERSION
from datamodules.tables import read_records, write_records

VERSION = "2"  # changes whenever the same options would give other samples
PART = 16  # images in a part of the cache
SMALLEST = 16  # pixels: the shorter side of a photograph, and the side of a sample
KEPT = 2**30  # bytes of a folder's pixels that stay in memory; photographs beyond are decoded each time
TRIES = 100  # references tried for one sample

# file -> (package, path, split). Pictures of one scene share a name before the dot.
EMBEDDED: dict[str, tuple[str, str, Split]] = {
    "astronaut": ("skimage", "data/astronaut.png", "train"),
    "flower": ("sklearn", "datasets/images/flower.jpg", "train"),
    "grace_hopper": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", "train"),
    "hubble": ("skimage", "data/hubble_deep_field.jpg", "train"),
    "ihc": ("skimage", "data/ihc.png", "train"),
    "motorcycle.left": ("skimage", "data/motorcycle_left.png", "train"),
    "motorcycle.right": ("skimage", "data/motorcycle_right.png", "train"),
    "retina": ("skimage", "data/retina.jpg", "train"),
    "rocket": ("skimage", "data/rocket.jpg", "val"),
    "chelsea": ("skimage", "data/chelsea.png", "test"),
    "china": ("sklearn", "datasets/images/china.jpg", "test"),
    "coffee": ("skimage", "data/coffee.png", "test"),
}


@dataclass(frozen=True)
class Photograph:
    """A clean photograph.

    Attributes:
        name: unique; what reports say.
        source: of the scene: what must not be split.
        hash: of the pixels.
        pixels: (H, W, 3) uint8; None where they are read from `path` each time.
    """

    name: str
    source: str
    path: Path
    hash: str
    pixels: NDArray[np.uint8] | None

    def read(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8."""
        return load_image(self.path) if self.pixels is None else self.pixels


Photos = dict[Split, list[Photograph]]  # sorted by name


@DATASETS.register("photographs")
class Photographs(RoiDataset):
    """Clean photographs, distorted and labelled here; see the module's docstring.

    Args:
        root: folder of photographs; "" for the embedded ones. Of a folder, a seeded fifth of the scenes each (one at least) go to
            test and val. Files of one scene share their folder and the name before its first dot.
        size: side of the square samples, pixels.
        train, val, test: images per split.
        only_test: makes test images of all photographs, and no others, for a model that was trained elsewhere.
        procedural: share of training images that are dead leaves instead of photographs.
        looks: gives each training photograph another look each time (see `datamodules.looks`).
        turns: in how many of a square's eight positions each training sample is shown; a training sample each.
        distortions: the types to draw from.
        mixed, clean, regions, min_area, visible, full_impact, several: see `datamodules.synthesis.Recipe`.
        pairs: gives each sample the clean image that it was made from, too (`RoiSample.clean`); restoration is learned from these.
        seed: of everything drawn.
        cache: folder for the samples; "" to make them on the fly each time.
        workers: processes that fill the cache; the result does not depend on it.

    Raises:
        ConfigError: an option out of its range.
    """

    def __init__(
        self,
        *,
        root: str = "",
        size: int = 256,
        train: int = 600,
        val: int = 24,
        test: int = 180,
        procedural: float = 0.5,
        looks: bool = True,
        turns: int = 1,
        distortions: tuple[str, ...] = ("blur", "colorfulness", "compression", "contrast", "exposure", "noise"),
        mask_encoder: Part[MaskEncoder] | None = None,
        quality_label: Part[QualityLabel] | None = None,
        mixed: float = 0.6,
        clean: float = 0.1,
        regions: int = 6,
        min_area: float = 0.015,
        visible: float = 0.97,
        full_impact: float = 0.25,
        several: int = 1,
        pairs: bool = False,
        only_test: bool = False,
        seed: int = 0,
        cache: str = "outputs/cache",
        workers: int = 2,
    ) -> None:
        for name, value, allowed, good in (
            ("size", size, f"at least {SMALLEST} pixels", size >= SMALLEST),
            ("train, val and test", (train, val, test), "numbers of images, none below 0", min(train, val, test) >= 0),
            ("procedural", procedural, "a share in [0, 1]", 0 <= procedural <= 1),
            ("turns", turns, "1 to 8", 1 <= turns <= 8),
            ("distortions", distortions, "one type at least, each named once", 0 < len(set(distortions)) == len(distortions)),
            ("workers", workers, "a number of processes, 0 for none", workers >= 0),
            ("only_test", only_test, "of a folder (root): the embedded photographs have splits of their own", not only_test or root),
        ):
            if not good:
                raise ConfigError(f"photographs: {name}: {allowed}; got {value}")
        self.root, self.size, self.seed, self.workers = root, size, seed, workers
        self.procedural, self.looks, self.turns, self.pairs = procedural, looks, turns, pairs
        self.only_test = only_test
        self.counts: dict[Split, int] = {"train": 0, "val": 0, "test": test} if only_test else {"train": train, "val": val, "test": test}
        self.distortions = {name: DISTORTIONS.build({"plugin": name}) for name in distortions}
        mask_encoder = mask_encoder or MASK_ENCODERS.part({"plugin": "superpixel"})
        quality_label = quality_label or QUALITY_LABELS.part({"plugin": "local_similarity"})
        self.mask_encoder, self.quality_label = mask_encoder(), quality_label()
        self.recipe = Recipe(mixed, clean, regions, min_area, visible, full_impact, several)
        self._options = {
            "size": size,
            "procedural": procedural,
            "looks": looks,
            "distortions": sorted(distortions),
            "recipe": vars(self.recipe),
            "seed": seed,
            "mask_encoder": identity(mask_encoder),
            "quality_label": identity(quality_label),
        }
        self.cache = Path(cache) if cache else None
        self._ready = False

    @property
    def most_types(self) -> int:
        """See the contract."""
        return min(self.recipe.several, len(self.distortions))

    @functools.cached_property
    def photographs(self) -> Photos:
        """The clean photographs of each split; read on first use."""
        return _from_folder(Path(self.root), self.seed, self.only_test) if self.root else _embedded()

    def only_tested(self) -> dict[str, Any]:
        """See the contract; a folder's photographs are dealt."""
        return {"only_test": True} if self.root and not self.only_test else {}

    def pictures(self, name: Split) -> set[str]:
        """See the contract."""
        return {mark for p in self.photographs[name] for mark in (f"pixels:{p.hash}", str(p.path.resolve()))}

    def prepare(self) -> None:
        """Fills the cache, part by part; parts that are there are not made again. Without a cache, reads what making needs.

        Raises:
            ConfigError: the folder holds too few photographs.
            ImageError: there is no such folder, or no image in it.
        """
        if self.cache is None:
            self._get_ready()
            return
        parts = _Parts(self)
        engine: Engine = Processes(workers=self.workers) if self.workers else Inline()
        make_all(parts, engine, "making samples")

    def split(self, name: Split) -> Samples:
        """The samples of a split.

        Raises:
            RuntimeError: the cache has not been filled.
        """
        turns = self.turns if name == "train" else 1
        if self.cache is None:
            self._get_ready()
            return _OnTheFly(self, name, turns)
        count = range(-(-self.counts[name] // PART))
        parts = [self._part_path(name, p) for p in count]
        cleans = [self._clean_path(name, p) for p in count] if self.pairs else []
        missing = [p for p in (*parts, *cleans) if not p.exists()]
        if missing:
            raise RuntimeError(
                f"{len(missing)} of {len([*parts, *cleans])} parts of the {name} split are not in {missing[0].parent}: call prepare() first"
            )
        return _Cached(read_records(parts)[: self.counts[name]], read_records(cleans)[: self.counts[name]], turns)

    def kept(self, name: Split, described: Mapping[str, Any]) -> Samples | None:
        """As the contract says: from the cache, by the fingerprint that `described`, so that no photograph is read for it."""
        if self.cache is None:
            return None
        folder = self._folder(str(described.get("fingerprint")))
        parts = [self._part_file(folder, name, p) for p in range(-(-self.counts[name] // PART))]
        return _Cached(read_records(parts)[: self.counts[name]], [], 1) if all(p.exists() for p in parts) else None

    def describe(self) -> dict[str, Any]:
        """Names and hashes of the photographs by split, the options, and the label measure."""
        return {
            "dataset": "photographs",
            "root": self.root or "embedded",
            "fingerprint": self.fingerprint,
            "photographs": self._hashes(),
            "counts": self.counts,
            "turns": self.turns,
            **self._options,
        }

    @functools.cached_property
    def fingerprint(self) -> str:
        """Changes whenever the samples would."""
        libraries = {n: importlib.metadata.version(n) for n in ("numpy", "scipy", "scikit-image", "pillow")}
        strengths = {name: distortion.strengths for name, distortion in self.distortions.items()}
        text = json.dumps([VERSION, self._hashes(), self._options, strengths, libraries], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def make(self, split: Split, index: int) -> tuple[NDArray[np.uint8], ImageRecord]:
        """Sample `index` of `split`, from scratch: its pixels (size, size, 3), and its record without them. See `make_pair`."""
        return self.make_pair(split, index)[1:]

    def make_pair(self, split: Split, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], ImageRecord]:
        """As `make`, with the clean pixels (size, size, 3) before the distorted ones.

        A sample does not depend on how many samples the split has, so that a larger split keeps what a smaller one made.

        Raises:
            RuntimeError: no image has a region large enough.
        """
        rng = np.random.default_rng([self.seed, SPLITS.index(split), index])
        for _ in range(TRIES):
            source, reference = self._reference(split, rng)
            masks = self.mask_encoder.propose(reference)
            distorted, regions = synthesize(reference, masks, self.distortions, self.quality_label, self.recipe, rng)
            if regions:
                break
        else:
            raise RuntimeError(
                f"no region in {TRIES} images covers min_area={self.recipe.min_area} of its image: lower min_area, "
                "or let the mask encoder propose fewer regions"
            )
        name = f"{split}-{index:06d}"
        named = tuple(replace(r, id=f"{name}-{r.id}") for r in regions)
        return reference, distorted, ImageRecord(name, source, split, self.size, self.size, named, png=b"")

    def _reference(self, split: Split, rng: np.random.Generator) -> tuple[str, NDArray[np.uint8]]:
        """A clean square: dead leaves, or a crop of a photograph reduced to `size`, which also hides the photograph's own flaws."""
        if split == "train" and rng.random() < self.procedural:
            return "dead_leaves", dead_leaves(self.size, rng)
        photograph = self.photographs[split][rng.integers(len(self.photographs[split]))]
        pixels = photograph.read()
        height, width = pixels.shape[:2]
        short = min(height, width)
        side = int(rng.integers(min(short, max(self.size, short // 2)), short + 1))  # never enlarged where it can be helped
        y, x = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
        crop = PIL.Image.fromarray(pixels[y : y + side, x : x + side])
        square = np.array(crop.resize((self.size, self.size), PIL.Image.Resampling.LANCZOS))
        square = np.ascontiguousarray(square[:, ::-1]) if rng.random() < 0.5 else square
        return photograph.source, relook(square, rng) if self.looks and split == "train" else square

    def _get_ready(self) -> None:
        """Reads, once, what `make` needs: the photographs and the mask encoder's weights."""
        if not self._ready:
            _ = self.photographs
            self.mask_encoder.load_pretrained()
            self._ready = True

    def _hashes(self) -> dict[str, dict[str, str]]:
        return {s: {p.name: p.hash for p in self.photographs[s]} for s in SPLITS}

    def _part(self, part: int) -> range:
        """Which samples part `part` of a split holds; the last part may hold more than the split shows."""
        return range(part * PART, (part + 1) * PART)

    def _folder(self, fingerprint: str) -> Path:
        assert self.cache is not None
        return self.cache / f"photographs-{fingerprint}-v{SCHEMA_VERSION}"

    def _part_file(self, folder: Path, split: Split, part: int) -> Path:
        return folder / f"{split}-{part:05d}.parquet"

    def _part_path(self, split: Split, part: int) -> Path:
        return self._part_file(self._folder(self.fingerprint), split, part)

    def _clean_path(self, split: Split, part: int) -> Path:
        """The same samples before they were distorted; made only for `pairs`, so that others need no room for them."""
        return self._part_path(split, part).with_suffix(".clean.parquet")

    @classmethod
    def tiny(cls) -> dict[str, Any]:
        """A handful of 64-pixel samples, made on the fly."""
        return {"size": 64, "train": 6, "val": 2, "test": 3, "regions": 3, "cache": "", "workers": 0}


class _Parts(Work):
    """The cache as a job: each part of each split is a shard."""

    def __init__(self, dataset: Photographs) -> None:
        self.dataset = dataset
        self.parts = [(s, p) for s in SPLITS for p in range(-(-dataset.counts[s] // PART))]
        self.key = str(dataset._part_path("train", 0).parent.resolve())

    def __len__(self) -> int:
        return len(self.parts)

    def images(self, shard: int) -> int:
        return len(self.dataset._part(self.parts[shard][1]))

    def is_done(self, shard: int) -> bool:
        part = self.parts[shard]
        return self.dataset._part_path(*part).exists() and (not self.dataset.pairs or self.dataset._clean_path(*part).exists())

    def get_ready(self) -> None:
        self.dataset._get_ready()

    def make(self, shard: int) -> Made:
        split, part = self.parts[shard]
        made = [self.dataset.make_pair(split, i) for i in self.dataset._part(part)]
        if self.dataset.pairs:
            write_records(self.dataset._clean_path(split, part), [replace(record, png=encode_png(clean)) for clean, _, record in made])
        write_records(self.dataset._part_path(split, part), [replace(record, png=encode_png(pixels)) for _, pixels, record in made])
        return Made(len(made), sum(len(record.regions) for *_, record in made))


class _Turned(Dataset[RoiSample], ABC):
    """`count` samples in `turns` positions each: sample i is sample i % count in position i // count."""

    def __init__(self, count: int, turns: int) -> None:
        self.count, self.turns = count, turns

    def __len__(self) -> int:
        return self.count * self.turns

    def __getitem__(self, index: int) -> RoiSample:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        turn, i = divmod(index, self.count)
        sample = self.sample(i)
        return sample.turned(turn) if turn else sample

    def region_counts(self) -> NDArray[np.int64]:
        """See the protocol."""
        return np.tile(np.array(self.counts(), np.int64), self.turns)

    @abstractmethod
    def sample(self, index: int) -> RoiSample:
        """Sample `index` as it is made, 0 <= index < count."""

    @abstractmethod
    def counts(self) -> list[int]:
        """Regions of each sample, as made."""


class _OnTheFly(_Turned):
    def __init__(self, dataset: Photographs, split: Split, turns: int) -> None:
        super().__init__(dataset.counts[split], turns)
        self.dataset, self.name = dataset, split

    def sample(self, index: int) -> RoiSample:
        clean, pixels, record = self.dataset.make_pair(self.name, index)
        return RoiSample(_tensor(pixels), record, clean=_tensor(clean) if self.dataset.pairs else None)

    def counts(self) -> list[int]:
        """Without a cache they must be made to be counted."""
        making = tqdm(range(self.count), unit="image", desc="counting regions", delay=2)
        return [len(self.dataset.make(self.name, i)[1].regions) for i in making]


class _Cached(_Turned):
    def __init__(self, records: list[ImageRecord], cleans: list[ImageRecord], turns: int) -> None:
        super().__init__(len(records), turns)
        self.records, self.cleans = records, cleans

    def sample(self, index: int) -> RoiSample:
        record = self.records[index]
        sample = RoiSample.of(record.pixels(), record)
        return replace(sample, clean=_tensor(self.cleans[index].pixels())) if self.cleans else sample

    def counts(self) -> list[int]:
        return [len(record.regions) for record in self.records]


def _embedded() -> Photos:
    found: Photos = {s: [] for s in SPLITS}
    for name, (package, path, split) in sorted(EMBEDDED.items()):
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        file = Path(spec.origin).parent / path
        pixels = load_image(file)
        found[split].append(Photograph(name, name.partition(".")[0], file, _hash(pixels), pixels))
    return found


def _from_folder(root: Path, seed: int, only_test: bool) -> Photos:
    """The photographs in `root`, dealt to the splits scene by scene, or all of them test; those that cannot be used are named in a warning.

    Raises:
        ConfigError: fewer than three scenes to deal, or no photograph.
        ImageError: there is no such folder, or no image in it.
    """
    usable, left_out = _readable(root)
    skipped = f"{len(left_out)} of {len(usable) + len(left_out)} images in {root} are left out: {'; '.join(left_out)}"
    if left_out:
        warnings.warn(skipped, stacklevel=2)
    scenes: dict[str, list[Photograph]] = defaultdict(list)
    for photograph in usable:
        scenes[photograph.source].append(photograph)
    if only_test and usable:
        return {"train": [], "val": [], "test": sorted(usable, key=lambda p: p.name)}
    if len(scenes) < 3:
        raise ConfigError(
            f"{root} holds {len(usable)} usable photograph(s) of {len(scenes)} scene(s), where files of one scene share their folder and "
            f"the name before its first dot: at least 3 scenes are needed, one for each of train, val and test"
            + (f" ({skipped})" if left_out else "")
        )
    held = max(1, len(scenes) // 5)
    dealt = [list(scenes.values())[i] for i in np.random.default_rng(seed).permutation(len(scenes))]
    parts: dict[Split, list[list[Photograph]]] = {"test": dealt[:held], "val": dealt[held : 2 * held], "train": dealt[2 * held :]}
    return {s: sorted((p for scene in parts[s] for p in scene), key=lambda p: p.name) for s in SPLITS}


def _readable(root: Path) -> tuple[list[Photograph], list[str]]:
    """The photographs in a folder, and why the other images are not among them."""
    usable: list[Photograph] = []
    left_out: list[str] = []
    seen: dict[str, str] = {}
    kept = 0
    for path in tqdm(list_images(root), unit="photograph", desc=f"reading {root}", delay=2):
        name = path.relative_to(root).as_posix()
        try:
            pixels = load_image(path)
        except ImageError as error:
            left_out.append(str(error))
            continue
        mark = _hash(pixels)
        if min(pixels.shape[:2]) < SMALLEST:
            left_out.append(f"{name} has {pixels.shape[1]} x {pixels.shape[0]} pixels, fewer than {SMALLEST} on a side")
        elif mark in seen:
            left_out.append(f"{name} is a copy of {seen[mark]}")
        else:
            seen[mark] = name
            kept += pixels.nbytes
            scene = path.relative_to(root).with_name(path.name.partition(".")[0]).as_posix()
            usable.append(Photograph(name, scene, path, mark, pixels if kept <= KEPT else None))
    return usable, left_out


def _tensor(pixels: NDArray[np.uint8]) -> torch.Tensor:
    """(H, W, 3) -> (3, H, W)."""
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _hash(image: NDArray[np.uint8]) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()[:16]
