"""python benchmarks/region_extractors.py: 32 regions of an image in one call, against one call a region as the reference does.

Every region extractor, on random maps of the published sizes: the pyramid of a ConvNeXt-L at 512 pixels, tokens for a language model
of width 4,096, on two threads, without gradients. "Loop" prepares the image and extracts one region, 32 times; "loop, prepared once"
prepares it once; "together" is one call. Prints how many times faster, and how far apart the tokens are. The times are taken in turns.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from components.batch import Pyramid, Regions
from components.region_extractors.base import REGION_EXTRACTORS, RegionExtractor

CHANNELS, SIDE, STRIDES, WIDTH, COUNT = (192, 384, 768, 1536), 512, (4, 8, 16, 32), 4096, 32
OPTIONS = {"drawn_box": {"on": "sheet"}}  # on the picture its work is the encoder's


def regions_of(count: int, side: int, crop: int) -> Regions:
    """Boxes of many sizes, with crops of noise."""
    masks, boxes = torch.zeros(1, count, side, side, dtype=torch.bool), []
    for mask in masks[0]:
        (top, left), (height, width) = torch.randint(0, side // 2, (2,)).tolist(), torch.randint(side // 16, side // 2, (2,)).tolist()
        mask[top : top + height, left : left + width] = True
        boxes.append([left / side, top / side, width / side, height / side])
    crops = torch.randn(1, count, 3, crop, crop)
    return Regions(masks, crops, torch.tensor([boxes]), masks.float().mean((2, 3)), torch.ones(1, count, dtype=torch.bool))


def seconds(do: Callable[[], Tensor]) -> tuple[float, float, Tensor]:
    """By the clock, by the processor, and what it gave."""
    wall, cpu = time.perf_counter(), time.process_time()
    out = do()
    return time.perf_counter() - wall, time.process_time() - cpu, out


@torch.no_grad()
def compare(extractor: RegionExtractor, pyramid: Pyramid, regions: Regions, turns: int = 3) -> dict[str, float]:
    """Times of the loops over those of the one call, and the largest difference of a token's value over the largest value."""
    each = [Regions(*(x[:, r : r + 1] for x in vars(regions).values())) for r in range(regions.valid.shape[1])]

    def loop() -> Tensor:
        return torch.cat([extractor(extractor.prepare(pyramid), region) for region in each], 1)

    def prepared_once() -> Tensor:
        prepared = extractor.prepare(pyramid)
        return torch.cat([extractor(prepared, region) for region in each], 1)

    def together() -> Tensor:
        return extractor(extractor.prepare(pyramid), regions)

    together()  # warm
    ways = {"loop": loop, "once": prepared_once, "together": together}
    taken = {name: [0.0, 0.0] for name in ways}
    found = {}
    for _ in range(turns):
        for name, way in ways.items():
            wall, cpu, found[name] = seconds(way)
            taken[name][0] += wall
            taken[name][1] += cpu
    apart = max(float((found[name] - found["together"]).abs().max() / found["loop"].abs().max()) for name in ("loop", "once"))
    (wall, cpu), (wall_once, cpu_once), (best, best_cpu) = (taken[name] for name in ways)
    return {
        "seconds": best / turns,
        "loop": wall / best,
        "loop, CPU": cpu / best_cpu,
        "prepared once": wall_once / best,
        "prepared once, CPU": cpu_once / best_cpu,
        "apart": apart,
    }


def main() -> None:
    """See the module."""
    torch.manual_seed(0)
    torch.set_num_threads(2)
    sizes = tuple((SIDE // s, SIDE // s) for s in STRIDES)
    pyramid = Pyramid(tuple(torch.randn(1, c, *size) for c, size in zip(CHANNELS, sizes, strict=True)))
    for i, name in enumerate(REGION_EXTRACTORS.names()):
        extractor = REGION_EXTRACTORS.build({"plugin": name, **OPTIONS.get(name, {})}, CHANNELS, sizes, WIDTH).eval()
        row = compare(extractor, pyramid, regions_of(COUNT, SIDE, extractor.crop_size))
        if i == 0:
            print(f"{'':<14}" + "".join(f"{key:>20}" for key in row))
        print(f"{name:<14}" + "".join(f"{value:>20.3g}" for value in row.values()), flush=True)


if __name__ == "__main__":
    main()
