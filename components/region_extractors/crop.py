"""The crop baseline: the region's box, cut out at the original resolution, and nothing else of the image."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from components.batch import Pyramid, Regions
from components.region_extractors.base import REGION_EXTRACTORS, RegionExtractor


@REGION_EXTRACTORS.register("crop")
class Crop(RegionExtractor):
    """A patch embedding of the crop, one more convolution, and the average over a grid of tokens, row by row.

    It has neither the mask nor the place, and its layers are its own: the image's encoder has seen the image, not the crop.
    """

    def __init__(
        self,
        channels: tuple[int, ...],
        sizes: tuple[tuple[int, int], ...],
        width: int,
        /,
        *,
        crop_size: int = 224,
        patch: int = 8,
        hidden: int = 256,
        grid: int = 2,
    ) -> None:
        """
        Args:
            crop_size: S, pixels, a multiple of `patch`. The box is squashed to a square.
            patch: side of the patches, pixels.
            hidden: channels of the convolutions.
            grid: tokens along each side; K is its square.

        Raises:
            ValueError: a crop that is no whole number of patches, or of too few for the grid.
        """
        super().__init__(channels, sizes, width)
        if patch < 1 or crop_size < patch or crop_size % patch:
            raise ValueError(f"crop_size: got {crop_size}, expected a multiple of patch {patch}")
        cells = -(-crop_size // patch // 2)  # the second convolution has stride 2
        if not 1 <= grid <= cells:
            raise ValueError(f"grid: got {grid}, but a crop of {crop_size} pixels has {cells} x {cells} cells: take 1 to {cells}")
        self.crop_size, self.tokens = crop_size, grid**2
        self.cells = nn.Sequential(
            nn.Conv2d(3, hidden, patch, stride=patch), nn.GELU(), nn.Conv2d(hidden, hidden, 3, stride=2, padding=1), nn.GELU()
        )
        self.pool = nn.AdaptiveAvgPool2d(grid)
        self.out = nn.Linear(hidden, width)

    def prepare(self, pyramid: Pyramid) -> None:
        """Nothing: it does not look at the image."""

    def forward(self, prepared: None, regions: Regions) -> Tensor:
        """See the contract; K is grid ** 2.

        Raises:
            ValueError: crops of another size.
        """
        if regions.crops.shape[-2:] != (self.crop_size, self.crop_size):
            raise ValueError(f"crops are {tuple(regions.crops.shape[-2:])}, this extractor was built for crop_size {self.crop_size}")
        grid = self.pool(self.cells(regions.crops.flatten(0, 1)))  # (BR, hidden, grid, grid)
        tokens = self.out(grid.flatten(2).transpose(1, 2))  # (BR, K, D)
        return tokens.unflatten(0, regions.crops.shape[:2])  # (B, R, K, D)

    @classmethod
    def tiny(cls) -> dict[str, Any]:
        """See the contract."""
        return {"crop_size": 32, "patch": 4, "hidden": 8}
