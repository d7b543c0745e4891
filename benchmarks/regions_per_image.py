"""python benchmarks/regions_per_image.py: many regions and all questions of an image at once, against one after the other.

A SEAGULL of the published composition (1,024 image tokens in the published conversation: a prefix of 1,098 in this project's tokenizer),
with a small ResNet and a small Llama of random weights, on two threads. "loop" asks one question about one region at a time, as the
released code does; "together" encodes the image and reads its prefix once. "again" asks about one region more of an image that was looked
at. Prints times as ratios, and how far the scores are apart.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from components.batch import TASKS
from components.scorers.base import SCORERS, Look

SIDE = 512
NODE = {
    "plugin": "roi_vlm",
    "conversation": "seagull_v1",
    "vision_encoder": {"plugin": "timm_pyramid", "name": "resnet10t", "image_size": SIDE},
    "region_extractor": {"plugin": "mfe", "embed": 128, "heads": 4, "mlp": 256, "crop_size": 128, "local_hidden": 64},
    "llm": {
        "plugin": "hf_causal",
        "tokenizer": "project",
        "adaptation": "frozen",
        "config": {
            "model_type": "llama",
            "vocab_size": 1024,
            "hidden_size": 512,
            "intermediate_size": 1376,
            "num_hidden_layers": 8,
            "num_attention_heads": 8,
            "max_position_embeddings": 4096,
        },
    },
}


def seconds(do: Callable[[], Any], times: int = 1) -> tuple[float, Any]:
    """Of the fastest of some runs, and what it gave."""
    best, out = float("inf"), None
    for _ in range(times):
        start = time.perf_counter()
        out = do()
        best = min(best, time.perf_counter() - start)
    return best, out


def main() -> None:
    """See the module."""
    torch.manual_seed(0)
    torch.set_num_threads(2)
    scorer = SCORERS.build(NODE).eval()
    image = torch.randint(0, 256, (3, SIDE, SIDE), dtype=torch.uint8)
    masks = torch.zeros(100, SIDE, SIDE, dtype=torch.bool)
    for mask in masks:
        (top, left), (height, width) = torch.randint(0, 384, (2,)).tolist(), torch.randint(16, 128, (2,)).tolist()
        mask[top : top + height, left : left + width] = True
    scorer.score(image, masks[:2])  # warm
    each, loop = seconds(lambda: [{t: scorer.score(image, m[None], (t,))[0][t] for t in TASKS} for m in masks[:32]])
    one = each / 32
    for count in (1, 8, 32, 100):
        together, found = seconds(lambda n=count: scorer.score(image, masks[:n]), times=3 if count < 32 else 1)
        apart = max(abs(a[t].value - b[t].value) for a, b in zip(found, loop, strict=False) for t in ("quality", "importance"))
        same = all(a["distortion"].text == b["distortion"].text for a, b in zip(found, loop, strict=False))
        print(f"{count:>4} regions x 3 questions: {one * count / together:5.1f} times the loop's speed; ", end="")
        print(f"scores {apart:.1e} apart, distortions {'equal' if same else 'NOT EQUAL'}", flush=True)
    first, look = seconds(lambda: Look(scorer, image))
    again, _ = seconds(lambda: look.score(masks[:1]), times=3)
    print(f"a region more of an image that was looked at: {again / (first + again):.3f} of the first")


if __name__ == "__main__":
    main()
