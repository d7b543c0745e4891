"""The contract of a region extractor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from components.batch import Pyramid, Regions
from components.outline import Outline
from components.registry import Registry


class RegionExtractor(nn.Module, ABC):
    """(pyramid, regions) -> (B, R, K, D) tokens. Wired: `channels` and `sizes` of the pyramid's levels, and the token `width` D.

    The image-only part runs once per image in `prepare`; `forward` does what depends on the regions. Regions are independent
    of each other unless an option couples them.

    Attributes:
        tokens: K, how many tokens a region becomes.
        shares_encoder: True where its crops are seen by the image's encoder: `forward` is then given, in place of `prepare`'s result, the
            pyramid of the crops, (V, C_l, h, w) on each level, of the V valid regions of the batch in their order.
        crop_size: side S of the crops it wants to see, 0 for none.
        outline: where given, a region's crop is the whole picture with the region's box drawn on it like this, of the encoder's own size
            unless `crop_size` is another.
        blocks: module classes that sharded training wraps.
        coupled: True where an option makes the tokens of a region depend on the image's other regions.
        neutral: beginnings of state keys that a weights file may be without, because they change nothing until they are trained.
        idle: beginnings of parameter names that get no gradient, because nothing depends on them; released checkpoints hold them.
    """

    tokens: int
    crop_size: int = 0
    outline: Outline | None = None
    shares_encoder: bool = False
    blocks: tuple[type[nn.Module], ...] = ()
    coupled: bool = False
    neutral: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()

    @abstractmethod
    def __init__(self, channels: tuple[int, ...], sizes: tuple[tuple[int, int], ...], width: int, /) -> None:
        super().__init__()
        if len(channels) != len(sizes):
            raise ValueError(f"{len(channels)} channels but {len(sizes)} sizes: a level has one of each")
        self.channels, self.map_sizes = tuple(channels), tuple(sizes)

    @abstractmethod
    def prepare(self, pyramid: Pyramid) -> Any:
        """Whatever depends on the image alone; maps are (B, C_l, H_l, W_l)."""

    @abstractmethod
    def forward(self, prepared: Any, regions: Regions) -> Tensor:
        """`prepare`'s result and the regions -> (B, R, K, D); rows where `regions.valid` is False are arbitrary but finite."""

    def check_state(self, state: Mapping[str, Tensor]) -> None:
        """Raises ValueError where these tensors, by their names here, are known to be of an extractor with other options."""

    def check_pyramid(self, pyramid: Pyramid) -> None:
        """Raises ValueError where the pyramid is not the one that this extractor was wired for."""
        expected = [(c, *size) for c, size in zip(self.channels, self.map_sizes, strict=True)]
        given = [tuple(m.shape[1:]) for m in pyramid.maps]
        if given != expected:
            raise ValueError(f"the pyramid's levels are {given}, this extractor was built for {expected} (channels, height, width)")

    @classmethod
    @abstractmethod
    def tiny(cls) -> dict[str, Any]:
        """Options of a small instance for tests (64-pixel images)."""


REGION_EXTRACTORS: Registry[RegionExtractor] = Registry("region_extractor", __package__, RegionExtractor)
