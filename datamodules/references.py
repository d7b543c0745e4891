"""The clean photographs of a folder: which they are, to which split each scene goes, and one of them decoded and reduced."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from tqdm.auto import tqdm

from datamodules.distortions.base import Float, Image
from datamodules.images import SUFFIXES, ImageError, list_images, load_image
from datamodules.making import file_hash
from datamodules.raw import SUFFIXES as RAW_SUFFIXES
from datamodules.raw import develop, is_raw, picture, reduced
from datamodules.records import Split

SMALLEST = 16  # pixels: the shorter side of a photograph


@dataclass(frozen=True)
class Reference:
    """A clean photograph of the folder.

    Attributes:
        number: its place in the list; it stays the same whatever becomes of the others.
        name: its path in the folder.
        source: the scene: what must not be split.
        bytes: of the file. sha256: of its content.
    """

    number: int
    name: str
    source: str
    split: Split
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Clean:
    """A photograph as it is worked on.

    Attributes:
        image: (H, W, 3) uint8.
        light: (H, W, 3) linear light that `image` was developed from; None where the file is no RAW.
    """

    image: Image
    light: Float | None = None


def find_files(root: Path) -> dict[str, int]:
    """Name -> bytes of each photograph in a folder and its subfolders, RAW files included, in order.

    Raises:
        ImageError: no such folder, or no photograph in it.
    """
    files = list_images(root, (*SUFFIXES, *RAW_SUFFIXES))
    return {path.relative_to(root).as_posix(): path.stat().st_size for path in files}


def other_files(root: Path) -> Counter[str]:
    """How many files of a folder are not looked at, being no photographs by their names: by suffix, the most frequent first."""
    files = [p for p in root.rglob("*") if not p.name.startswith(".") and p.is_file()]
    found = Counter(p.suffix.lower() for p in files if p.suffix.lower() not in (*SUFFIXES, *RAW_SUFFIXES))
    return Counter(dict(found.most_common()))


def find_references(root: Path, seed: int, val: float, test: float) -> tuple[list[Reference], list[dict[str, Any]]]:
    """The photographs of a folder, and those left out because they copy another byte for byte, with the reason.

    Files of one scene share their folder and the name before its first dot. Scenes are dealt by `seed`: shares `val` and `test`, rounded,
    and at least one scene each where the share is not 0; the rest to train.

    Raises:
        ImageError: no such folder, or no photograph in it; or fewer scenes than splits that are asked for.
    """
    sizes = find_files(root)
    hashes = {name: file_hash(root / name) for name in tqdm(sizes, unit="photograph", desc=f"reading {root}", delay=2)}
    first: dict[str, str] = {}
    for name, mark in hashes.items():
        first.setdefault(mark, name)
    kept = [name for name, mark in hashes.items() if first[mark] == name]
    left_out = [{"name": n, "images": 0, "why": f"a copy of {first[m]}"} for n, m in hashes.items() if first[m] != n]
    scenes = {name: Path(name).with_name(Path(name).name.partition(".")[0]).as_posix() for name in kept}
    splits = _dealt(sorted(set(scenes.values())), seed, val, test, root)
    references = [Reference(i, n, scenes[n], splits[scenes[n]], sizes[n], hashes[n]) for i, n in enumerate(kept)]
    return references, left_out


def _dealt(scenes: list[str], seed: int, val: float, test: float, root: Path) -> dict[str, Split]:
    held = {"test": test, "val": val}
    counts = {name: max(1, round(share * len(scenes))) if share else 0 for name, share in held.items()}
    if sum(counts.values()) >= len(scenes):
        raise ImageError(
            f"{root} holds {len(scenes)} scene(s), where files of one scene share their folder and the name before its first dot: too few "
            f"for train, test={test} and val={val}. Bring more photographs, or set a share to 0"
        )
    order = [scenes[i] for i in np.random.default_rng(seed).permutation(len(scenes))]
    edges = counts["test"], counts["test"] + counts["val"]
    return {scene: "test" if i < edges[0] else "val" if i < edges[1] else "train" for i, scene in enumerate(order)}


def read_reference(root: Path, reference: Reference, size: int) -> Clean:
    """Decodes a photograph, or develops it, and reduces it to `size` pixels on the shorter side; 0 leaves it as it is.

    Raises:
        ImageError: it cannot be read, or has fewer than `SMALLEST` pixels on a side.
        ChangedError: its content is no longer that of the list.
    """
    path = root / reference.name
    if not path.is_file() or file_hash(path) != reference.sha256:
        raise ChangedError(f"photograph {path} has changed or gone since this data was begun: bring it back, or begin in another folder")
    if is_raw(path):
        light = develop(path)
        _check_size(light.shape, path)
        to = _smaller(light.shape[:2], size)
        light = light if to == light.shape[:2] else reduced(light, to)
        return Clean(picture(light), light)
    pixels = load_image(path)
    _check_size(pixels.shape, path)
    to = _smaller(pixels.shape[:2], size)
    if to != pixels.shape[:2]:
        pixels = np.array(PIL.Image.fromarray(pixels).resize(to[::-1], PIL.Image.Resampling.LANCZOS))
    return Clean(pixels)


class ChangedError(ValueError):
    """A photograph is not the one that the data was begun with."""


def _check_size(shape: tuple[int, ...], path: Path) -> None:
    if min(shape[:2]) < SMALLEST:
        raise ImageError(f"photograph {path} has {shape[1]} x {shape[0]} pixels, fewer than {SMALLEST} on a side")


def _smaller(shape: tuple[int, ...], size: int) -> tuple[int, int]:
    height, width = shape
    scale = size / min(height, width)
    return (height, width) if size == 0 or scale >= 1 else (max(1, round(height * scale)), max(1, round(width * scale)))
