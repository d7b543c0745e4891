"""The crop baseline: the region's box, cut out at the original resolution, and nothing else of the image."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

from components.batch import Pyramid, Regions
from components.region_extractors._seen_crops import tokens_of_crops
from components.region_extractors.base import REGION_EXTRACTORS, RegionExtractor


@REGION_EXTRACTORS.register("crop")
class Crop(RegionExtractor):
    """The crop as a grid of tokens, row by row; it has neither the mask nor the place.

    With an encoder of its own: a patch embedding, one more convolution, and the average over each part of the grid. With the image's
    (`shared`): the average over each part of the grid on each of its levels through a linear map, the levels summed, through another one.
    The image's encoder then sees each crop as if it were an image; it stands in the model once, and a step takes longer by the crops.
    """

    def __init__(
        self,
        channels: tuple[int, ...],
        sizes: tuple[tuple[int, int], ...],
        width: int,
        /,
        *,
        crop_size: int = 224,
        encoder: Literal["own", "shared"] = "own",
        patch: int = 8,
        hidden: int = 256,
        grid: int = 2,
    ) -> None:
        """
        Args:
            crop_size: S, pixels, a multiple of `patch`, or one that the shared encoder can see. The box is squashed to a square.
            encoder: "own", which begins with nothing, or "shared", the image's, trained or frozen as that is.
            patch: side of the patches of an encoder of its own, pixels.
            hidden: channels of its convolutions, or of the shared levels' sum.
            grid: tokens along each side; K is its square.

        Raises:
            ValueError: a crop that is no whole number of patches, or of too few for the grid.
        """
        super().__init__(channels, sizes, width)
        self.crop_size, self.tokens, self.grid = crop_size, grid**2, grid
        self.shares_encoder = encoder == "shared"
        if self.shares_encoder:
            if grid < 1 or crop_size < 1:
                raise ValueError(f"grid and crop_size must be at least 1, got grid {grid}, crop_size {crop_size}")
            self.levels = nn.ModuleList(nn.Linear(c, hidden) for c in channels)
        else:
            if patch < 1 or crop_size < patch or crop_size % patch:
                raise ValueError(f"crop_size: got {crop_size}, expected a multiple of patch {patch}")
            cells = -(-crop_size // patch // 2)  # the second convolution has stride 2
            if not 1 <= grid <= cells:
                raise ValueError(f"grid: got {grid}, but a crop of {crop_size} pixels has {cells} x {cells} cells: take 1 to {cells}")
            self.cells = nn.Sequential(
                nn.Conv2d(3, hidden, patch, stride=patch), nn.GELU(), nn.Conv2d(hidden, hidden, 3, stride=2, padding=1), nn.GELU()
            )
            self.pool = nn.AdaptiveAvgPool2d(grid)
        self.out = nn.Linear(hidden, width)

    def prepare(self, pyramid: Pyramid) -> None:
        """Nothing: it does not look at the image."""

    def forward(self, prepared: Pyramid | None, regions: Regions) -> Tensor:
        """See the contract; K is grid ** 2.

        Raises:
            ValueError: crops of another size, or a pyramid of them that is not that of the image's encoder.
        """
        if regions.crops.shape[-2:] != (self.crop_size, self.crop_size):
            raise ValueError(f"crops are {tuple(regions.crops.shape[-2:])}, this extractor was built for crop_size {self.crop_size}")
        if self.shares_encoder:
            return tokens_of_crops(prepared, regions.valid, self.grid, self.levels, self.out)
        grid = self.pool(self.cells(regions.crops.flatten(0, 1)))  # (BR, hidden, grid, grid)
        tokens = self.out(grid.flatten(2).transpose(1, 2))  # (BR, K, D)
        return tokens.unflatten(0, regions.crops.shape[:2])  # (B, R, K, D)

    @classmethod
    def tiny(cls) -> dict[str, Any]:
        """See the contract."""
        return {"crop_size": 32, "patch": 4, "hidden": 8}
