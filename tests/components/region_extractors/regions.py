"""A small pyramid and regions of known boxes, for the tests of region extractors."""

import torch

from components.batch import Pyramid, Regions

CHANNELS, SIZES, WIDTH = (8, 12, 16, 24), ((16, 16), (8, 8), (4, 4), (2, 2)), 20
SIDE = 64


def constant_pyramid(images=1):
    """Each channel of each level is a constant of its own."""
    generator = torch.Generator().manual_seed(3)
    return Pyramid(
        tuple(torch.randn(images, c, 1, 1, generator=generator).expand(-1, -1, *s) for c, s in zip(CHANNELS, SIZES, strict=True))
    )


def random_pyramid(images=1, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return Pyramid(tuple(torch.randn(images, c, *s, generator=generator) for c, s in zip(CHANNELS, SIZES, strict=True)))


def filled(*boxes, crop_size=0):
    """One image, `SIDE` pixels wide, whose regions fill their boxes (left, top, width, height in pixels)."""
    masks = torch.zeros(1, len(boxes), SIDE, SIDE, dtype=torch.bool)
    for r, (left, top, width, height) in enumerate(boxes):
        masks[0, r, top : top + height, left : left + width] = True
    return Regions(
        masks=masks,
        crops=torch.randn(1, len(boxes), 3, crop_size, crop_size, generator=torch.Generator().manual_seed(2)),
        boxes=torch.tensor([boxes], dtype=torch.float32) / SIDE,
        areas=masks.float().mean((2, 3)),
        valid=torch.ones(1, len(boxes), dtype=torch.bool),
    )
