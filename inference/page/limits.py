"""What a visitor may ask of the server, and how a refusal is said."""

from __future__ import annotations

import math
from dataclasses import dataclass

from components.registry import ConfigError


class Refusal(ValueError):
    """Something that a visitor asked for and does not get; its message is shown on the page."""


@dataclass(frozen=True)
class Limits:
    """Bounds of what visitors use.

    Attributes:
        megabytes: of an upload, 10^6 bytes each.
        pixels: of an image, width x height.
        regions: of an image.
        images: that stay encoded at once, over all visitors; one more puts the longest unused aside, and it is encoded again when needed.
        visitors: whose image and regions are kept at once.
        waiting: requests that may wait for their turn.
        stored: of all visitors' files together, 10^6 bytes each.

    Raises:
        ConfigError: one of them is not positive, or without bound.
    """

    megabytes: float = 20.0
    pixels: int = 24_000_000
    regions: int = 50
    images: int = 8
    visitors: int = 32
    waiting: int = 32
    stored: float = 4000.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (value > 0 and math.isfinite(value)):
                raise ConfigError(f"--{'max-mb' if name == 'megabytes' else f'max-{name}'}: got {value}, expected a positive number")

    @property
    def bytes(self) -> int:
        """Of an upload."""
        return int(self.megabytes * 1_000_000)
