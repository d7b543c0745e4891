"""The contract of a data set."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from components.prompts import DISTORTION_TYPES
from components.registry import Registry
from datamodules.records import Split

if TYPE_CHECKING:
    from datamodules.samples import RoiSample


class Samples(Protocol):
    """A map-style sequence of samples: `samples[i]` is the same whenever and wherever it is asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> RoiSample: ...

    def region_counts(self) -> NDArray[np.int64]:
        """(N,): how many regions each sample has, without reading an image."""


class RoiDataset(ABC):
    """Images with regions in three splits that share no source.

    Attributes:
        cache: folder for what is costly to make and can be made again; None where there is none.
        pairs: whether every sample knows what its image was before it was distorted.
    """

    cache: Path | None = None
    pairs: bool = False

    @property
    def most_types(self) -> int:
        """The most distortions that the label of a region names; bounds the length of an answer."""
        return len(DISTORTION_TYPES)

    def prepare(self) -> None:
        """Makes or checks what is on disk; called once, by one process, before `split`. May be killed and called again."""

    @abstractmethod
    def split(self, name: Split) -> Samples:
        """The samples of a split."""

    def kept(self, name: Split, described: Mapping[str, Any]) -> Samples | None:
        """The samples of a split where they can be read at once and are those that `described`; nothing is made for it.

        Args:
            described: what `describe` said when they were used, as JSON gives it back.

        Returns:
            None where they would have to be made, or are others now.
        """
        return self.split(name) if json.loads(json.dumps(self.describe())) == described else None

    def only_tested(self) -> dict[str, Any]:
        """Options that make a test image of every image; none where the data say themselves which are, or the options do."""
        return {}

    def pictures(self, name: Split) -> set[str] | None:
        """What tells the pictures of a split from others, whatever they are called: where a file lies, and hashes of bytes or of pixels.

        Pictures are what was photographed or listed, not the samples made of them. None where a data set does not know.
        """
        return None

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What a run records about its data: names, counts, hashes, label measure with version and licence."""

    @classmethod
    @abstractmethod
    def tiny(cls) -> dict[str, Any]:
        """Options of a small instance for tests."""


DATASETS: Registry[RoiDataset] = Registry("dataset", __package__, RoiDataset)
