"""The embedded default: real photographs that ship inside well-known packages (or any folder), distorted and labelled here.

Samples are drawn from a seed: sample i of a split is the same on every machine with the same libraries, whether it is made on
the fly or read from the cache. Photographs never cross splits; dead-leaves images join the training split alone.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from components.mask_encoders.base import MASK_ENCODERS, MaskEncoder
from components.registry import ConfigError, Part
from datamodules.datasets.base import DATASETS, RoiDataset, Samples
from datamodules.distortions.base import DISTORTIONS
from datamodules.images import list_images, load_image
from datamodules.procedural import dead_leaves
from datamodules.quality_labels.base import QUALITY_LABELS, QualityLabel
from datamodules.records import SPLITS, ImageRecord, RegionRecord, RoiSample, Split, encode_png, read_records, write_records
from datamodules.synthesis import Recipe, synthesize

VERSION = "1"  # changes whenever the same options would give other samples
PART = 16  # images in a part of the cache

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


@DATASETS.register("photographs")
class Photographs(RoiDataset):
    """See the module's docstring.

    Args:
        root: folder of photographs; "" for the embedded ones. Of a folder, a seeded fifth each (one at least) go to test and val.
        size: side of the square samples, pixels.
        train, val, test: images per split.
        procedural: share of training images that are dead leaves instead of photographs.
        distortions: the types to draw from.
        mixed, clean, regions, min_area, visible, full_impact: see `datamodules.synthesis.Recipe`.
        seed: of everything drawn.
        cache: folder for the samples; "" to make them on the fly each time.
        workers: processes that fill the cache; the result does not depend on it.
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
        distortions: tuple[str, ...] = ("blur", "colorfulness", "compression", "contrast", "exposure", "noise"),
        mask_encoder: Part[MaskEncoder] | None = None,
        quality_label: Part[QualityLabel] | None = None,
        mixed: float = 0.6,
        clean: float = 0.1,
        regions: int = 6,
        min_area: float = 0.015,
        visible: float = 0.97,
        full_impact: float = 0.25,
        seed: int = 0,
        cache: str = "outputs/cache",
        workers: int = 2,
    ) -> None:
        if not 0 <= procedural <= 1 or not 0 <= mixed <= 1 or not 0 <= clean < 1:
            raise ConfigError(f"procedural, mixed and clean are shares in [0, 1], got {procedural}, {mixed}, {clean}")
        self.root, self.size, self.seed, self.procedural, self.workers = root, size, seed, procedural, workers
        self.counts: dict[Split, int] = {"train": train, "val": val, "test": test}
        self.distortions = {name: DISTORTIONS.build({"plugin": name}) for name in distortions}
        self.mask_encoder = (mask_encoder or MASK_ENCODERS.part({"plugin": "superpixel"}))()
        self.quality_label = (quality_label or QUALITY_LABELS.part({"plugin": "local_similarity"}))()
        self.recipe = Recipe(mixed, clean, regions, min_area, visible, full_impact)
        self._options = {
            "size": size,
            "counts": self.counts,
            "procedural": procedural,
            "distortions": sorted(distortions),
            "recipe": vars(self.recipe),
            "seed": seed,
            "mask_encoder": _identity(self.mask_encoder),
            "quality_label": _identity(self.quality_label),
        }
        self._cache = Path(cache) if cache else None
        self._photographs: dict[Split, dict[str, NDArray[np.uint8]]] | None = None

    @property
    def photographs(self) -> dict[Split, dict[str, NDArray[np.uint8]]]:
        """The clean photographs of each split, by name; read on first use."""
        if self._photographs is None:
            self._photographs = _embedded() if not self.root else _from_folder(self.root, self.seed)
        return self._photographs

    def prepare(self) -> None:
        """Fills the cache, part by part; parts that are there are not made again."""
        self.mask_encoder.load_pretrained()
        if self._cache is None:
            return
        todo = [(s, p) for s in SPLITS for p in range(-(-self.counts[s] // PART)) if not self._part_path(s, p).exists()]
        if not todo:
            return
        loader: DataLoader[str] = DataLoader(_Parts(self, todo), batch_size=None, num_workers=min(self.workers, len(todo)))
        with tqdm(total=len(todo) * PART, unit="image", desc="making samples") as bar:
            for _ in loader:
                bar.update(PART)

    def split(self, name: Split) -> Samples:
        if self._cache is None:
            return _OnTheFly(self, name)
        parts = [self._part_path(name, p) for p in range(-(-self.counts[name] // PART))]
        missing = [p for p in parts if not p.exists()]
        if missing:
            raise RuntimeError(
                f"{len(missing)} of {len(parts)} parts of the {name} split are not in {missing[0].parent}: call prepare() first"
            )
        return _Cached(read_records(parts))

    def describe(self) -> dict[str, Any]:
        """Names and hashes of the photographs by split, the options, and the label measure."""
        names = {s: {n: _hash(p) for n, p in sorted(self.photographs[s].items())} for s in SPLITS}
        return {
            "dataset": "photographs",
            "root": self.root or "embedded",
            "fingerprint": self.fingerprint,
            "photographs": names,
            **self._options,
        }

    @property
    def fingerprint(self) -> str:
        """Changes whenever the samples would."""
        names = {s: {n: _hash(p) for n, p in sorted(self.photographs[s].items())} for s in SPLITS}
        libraries = {n: importlib.metadata.version(n) for n in ("numpy", "scipy", "scikit-image", "pillow")}
        text = json.dumps([VERSION, names, self._options, libraries], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def make(self, split: Split, index: int) -> ImageRecord:
        """Sample `index` of `split`, from scratch."""
        if not 0 <= index < self.counts[split]:
            raise IndexError(f"sample {index} of a {split} split of {self.counts[split]}")
        rng = np.random.default_rng([self.seed, SPLITS.index(split), index])
        regions: list[RegionRecord] = []
        while not regions:
            source, reference = self._reference(split, rng)
            masks = self.mask_encoder.propose(reference)
            distorted, regions = synthesize(reference, masks, self.distortions, self.quality_label, self.recipe, rng)
        name = f"{split}-{index:06d}"
        named = tuple(RegionRecord(**{**vars(r), "id": f"{name}-{r.id}"}) for r in regions)
        return ImageRecord(name, source, split, self.size, self.size, named, encode_png(distorted))

    def _reference(self, split: Split, rng: np.random.Generator) -> tuple[str, NDArray[np.uint8]]:
        """A clean square: dead leaves, or a crop of a photograph reduced to `size`, which also hides the photograph's own flaws."""
        if split == "train" and rng.random() < self.procedural:
            return "dead_leaves", dead_leaves(self.size, rng)
        names = sorted(self.photographs[split])
        name = names[rng.integers(len(names))]
        photograph = self.photographs[split][name]
        height, width = photograph.shape[:2]
        side = int(min(height, width) * rng.uniform(0.6, 1.0))
        y, x = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
        crop = PIL.Image.fromarray(photograph[y : y + side, x : x + side])
        square = np.array(crop.resize((self.size, self.size), PIL.Image.Resampling.LANCZOS))
        return name.partition(".")[0], np.ascontiguousarray(square[:, ::-1]) if rng.random() < 0.5 else square

    def _part_path(self, split: Split, part: int) -> Path:
        assert self._cache is not None
        return self._cache / f"photographs-{self.fingerprint}" / f"{split}-{part:05d}.parquet"

    @classmethod
    def tiny(cls) -> dict[str, Any]:
        """A handful of 64-pixel samples, made on the fly."""
        return {"size": 64, "train": 6, "val": 2, "test": 3, "regions": 3, "cache": "", "workers": 0}


class _Parts(Dataset[str]):
    """Writes part i of a to-do list when it is asked for; so a loader's workers fill the cache between them."""

    def __init__(self, dataset: Photographs, todo: list[tuple[Split, int]]) -> None:
        self.dataset, self.todo = dataset, todo

    def __len__(self) -> int:
        return len(self.todo)

    def __getitem__(self, index: int) -> str:
        split, part = self.todo[index]
        last = min((part + 1) * PART, self.dataset.counts[split])
        path = self.dataset._part_path(split, part)
        write_records(path, [self.dataset.make(split, i) for i in range(part * PART, last)])
        return path.name


class _OnTheFly(Dataset[RoiSample]):
    def __init__(self, dataset: Photographs, split: Split) -> None:
        self.dataset, self.name = dataset, split

    def __len__(self) -> int:
        return self.dataset.counts[self.name]

    def __getitem__(self, index: int) -> RoiSample:
        return self.dataset.make(self.name, index).sample()


class _Cached(Dataset[RoiSample]):
    def __init__(self, records: list[ImageRecord]) -> None:
        self.records = records

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> RoiSample:
        return self.records[index].sample()


def _embedded() -> dict[Split, dict[str, NDArray[np.uint8]]]:
    found: dict[Split, dict[str, NDArray[np.uint8]]] = {s: {} for s in SPLITS}
    for name, (package, path, split) in EMBEDDED.items():
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        found[split][name] = load_image(Path(spec.origin).parent / path)
    return found


def _from_folder(root: str, seed: int) -> dict[Split, dict[str, NDArray[np.uint8]]]:
    files = list_images(Path(root))
    if len(files) < 3:
        raise ConfigError(f"{root} holds {len(files)} photograph(s): at least 3 are needed, one for each of train, val and test")
    held = max(1, len(files) // 5)
    order = np.random.default_rng(seed).permutation(len(files)).tolist()
    parts: dict[Split, list[int]] = {"test": order[:held], "val": order[held : 2 * held], "train": order[2 * held :]}
    return {s: {files[i].relative_to(root).as_posix(): load_image(files[i]) for i in sorted(parts[s])} for s in SPLITS}


def _hash(image: NDArray[np.uint8]) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()[:16]


def _identity(plugin: object) -> dict[str, Any]:
    """Name, options and, where it has them, version and licence."""
    plain = {k: v for k, v in sorted(vars(plugin).items()) if isinstance(v, bool | int | float | str) and not k.startswith("_")}
    extra = {k: getattr(plugin, k) for k in ("version", "licence") if hasattr(plugin, k)}
    return {"plugin": type(plugin).__name__, **extra, **plain}
