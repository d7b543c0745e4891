"""The contract of a vision encoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor, nn

from components.batch import Pyramid
from components.preprocess import Preprocess
from components.registry import ConfigError, Registry


class VisionEncoder(nn.Module, ABC):
    """Images -> `Pyramid`. Construction reads neither disk nor network and works on the meta device.

    Attributes:
        channels: C_l of each level, fine to coarse.
        strides: pixels per cell of each level; a plain ViT gives several depths at one stride.
        preprocess: what the images must look like.
        blocks: module classes that sharded training wraps.
        any_size: True where `forward` takes images of other sizes than its own, rectangles too, and makes maps of about their size over the
            stride.
        has_weights: True where `load_pretrained` will read trained weights (such an encoder may stay frozen).
        sources: names of the options that name weights or other files; who packs a model takes along what they point to.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    preprocess: Preprocess
    blocks: tuple[type[nn.Module], ...] = ()
    any_size: bool = False
    has_weights: bool = False
    sources: ClassVar[tuple[str, ...]] = ("weights",)

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """(H_l, W_l) of each level at the encoder's own image size."""
        return tuple((self.preprocess.size // s, self.preprocess.size // s) for s in self.strides)

    def told(self) -> str:
        """What it gives, in words."""
        of = f"{len(self.strides)} level{'s' if len(self.strides) > 1 else ''} at strides {', '.join(map(str, self.strides))}"
        return f"{of} with {', '.join(map(str, self.channels))} channels, of {self.preprocess.size} x {self.preprocess.size} pixels"

    @abstractmethod
    def forward(self, images: Tensor) -> Pyramid:
        """images (B, 3, H, W), normalised -> maps (B, C_l, H / stride_l, W / stride_l)."""

    def check_size(self, size: int, option: str = "crop_size") -> None:
        """Raises ConfigError, which names `option`, where it cannot see crops of `size` pixels a side as it sees images of its own size."""
        if size != self.preprocess.size and not self.any_size:
            raise ConfigError(f"{option}: got {size}, but this encoder sees {self.preprocess.size} pixels a side and nothing else")
        if size < max(self.strides) or size % max(self.strides):
            raise ConfigError(f"{option}: {size} is no multiple of {max(self.strides)}, the encoder's largest stride")

    def base_model(self) -> dict[str, str] | None:
        """{"id": ..., "revision": ...} of the published model that `load_pretrained` reads; None where it reads none or a file."""
        return None

    def load_pretrained(self) -> None:
        """Reads trained weights where the configuration names some; called once, after construction."""

    def weights_module(self) -> nn.Module:
        """The module whose state is a weights file of this encoder: what `load_pretrained` fills and a run may save."""
        return self

    @classmethod
    @abstractmethod
    def tiny(cls) -> dict[str, Any]:
        """Options of a small, random instance for tests."""


VISION_ENCODERS: Registry[VisionEncoder] = Registry("vision_encoder", __package__, VisionEncoder)
