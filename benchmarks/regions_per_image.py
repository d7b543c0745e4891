"""python benchmarks/regions_per_image.py: many regions and all questions of an image at once, against one after the other.

A SEAGULL of the published composition (1,024 image tokens in the published conversation: a prefix of 1,098 in this project's tokenizer),
with a small ResNet and a small Llama of random weights, made to answer otherwise about each region, on two threads. "loop" asks one
question about one region at a time, as the released code does, about eight regions whose answers lie far apart; "together" encodes the
image and reads its prefix once, with the eight at even distances among all. "again" asks about one region more of an image that was looked
at. Prints the seconds of a question in the loop and all other times as ratios to it, how far the scores are from the loop's, and how much
there is to tell: how far apart the loop's own scores are, and its distinct texts.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from components.scorers.base import SCORERS, Look, Scorer
from components.tasks import TASKS, Task

SIDE = 512
SCORES: tuple[Task, ...] = ("quality", "importance")
GAIN = 5  # with it scores spread over some hundredths, and distortions get several texts
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


def photograph(regions: int, side: int = SIDE) -> tuple[Tensor, Tensor]:
    """Squares of colours, some plain and some noisy: image (3, side, side) uint8, and boxes (regions, side, side) of it that differ."""
    colours = torch.randint(0, 256, (3, 8, 8)).repeat_interleave(side // 8, 1).repeat_interleave(side // 8, 2)
    noise = torch.randint(-120, 121, (3, side, side)) * torch.rand(8, 8).repeat_interleave(side // 8, 0).repeat_interleave(side // 8, 1)
    masks = torch.zeros(regions, side, side, dtype=torch.bool)
    for mask in masks:
        (top, left) = torch.randint(0, 3 * side // 4, (2,)).tolist()
        (height, width) = torch.randint(side // 32, side // 4, (2,)).tolist()
        mask[top : top + height, left : left + width] = True
    return (colours + noise).clamp(0, 255).byte(), masks


@torch.no_grad()
def tell_apart(scorer: Scorer, image: Tensor, masks: Tensor) -> None:
    """Makes a random model's answers differ from region to region, as a trained one's do: as it is initialised it says the same of all,
    and answers that were mixed up would pass for equal. The tokens of regions are brought to mean 0 and deviation 1 over those of
    `masks`, and the language model gets larger weights, with which attention finds them."""
    seen: list[Tensor] = []
    extractor, llm = scorer.parts()["region_extractor"], scorer.parts()["llm"]
    listening = extractor.register_forward_hook(lambda _, given, tokens: seen.append(tokens.flatten(0, 1)))
    scorer.score(image, masks, scorer.tasks[:1])
    listening.remove()
    mean, spread = torch.cat(seen).mean(0), torch.cat(seen).std()
    extractor.register_forward_hook(lambda _, given, tokens: (tokens - mean) / spread)
    for weight in llm.parameters():
        weight *= GAIN if weight.ndim > 1 else 1


def chosen(scorer: Scorer, image: Tensor, masks: Tensor, count: int) -> Tensor:
    """Which of `masks` to ask about in the loop (count,): at even steps through the order of their quality, so that no two are answered
    alike."""
    quality = torch.tensor([answer["quality"].value for answer in scorer.score(image, masks, ("quality",))])
    return quality.argsort()[_even(len(masks), count)]


def compare(scorer: Scorer, image: Tensor, masks: Tensor, counts: Sequence[int], looped: Tensor) -> list[dict[str, float]]:
    """For each of `counts` regions: how many times the loop's speed, and how far the scores are from the loop's.

    Args:
        masks: (R, H, W). looped: those of them that the loop asks about; among `count` regions together they stand at even distances.

    Returns:
        Beside these: "gap", the least difference between two of the loop's scores of quality, "texts", the number of its distinct ones,
        and "same", whether they are those of all together.
    """
    asked = masks[looped]
    scorer.score(image, masks[:2])  # warm
    each, loop = seconds(lambda: [{t: scorer.score(image, m[None], (t,))[0][t] for t in TASKS} for m in asked])
    quality = torch.tensor([answer["quality"].value for answer in loop]).sort().values
    gap, texts = float(quality.diff().min()), len({answer["distortion"].text for answer in loop})
    print(f"loop: {each / len(loop) / len(TASKS):.2f} s a question; quality of two of its {len(loop)} regions differs by ", end="")
    print(
        f"{gap:.1e} at least ({float(quality[-1] - quality[0]):.2f} from the lowest to the highest), and {texts} texts differ", flush=True
    )
    rows = []
    for count in counts:
        places = _even(count, min(count, len(loop)))
        together = masks[torch.arange(count) % len(masks)]
        together[places] = asked[: len(places)]
        taken, found = seconds(lambda m=together: scorer.score(image, m), times=3 if count < 32 else 1)
        pairs = [(found[place], answer) for place, answer in zip(places.tolist(), loop, strict=False)]
        apart = max(abs(a[t].value - b[t].value) for a, b in pairs for t in SCORES)
        same = all(a["distortion"].text == b["distortion"].text for a, b in pairs)
        ratio = each / len(loop) * count / taken
        print(f"{count:>4} regions x 3 questions: {ratio:5.1f} times the loop's speed; ", end="")
        print(f"scores {apart:.1e} apart, distortions {'equal' if same else 'NOT EQUAL'}", flush=True)
        rows.append({"ratio": ratio, "apart": apart, "gap": gap, "texts": texts, "same": same})
    return rows


def _even(length: int, count: int) -> Tensor:
    """`count` places from 0 to length - 1 at even distances, both ends among them."""
    return torch.linspace(0, length - 1, count).round().long()


def main() -> None:
    """See the module."""
    torch.manual_seed(0)
    torch.set_num_threads(2)
    scorer = SCORERS.build(NODE).eval()
    image, masks = photograph(100)
    tell_apart(scorer, image, masks[:32])
    compare(scorer, image, masks, (1, 8, 32, 100), chosen(scorer, image, masks[:32], 8))
    first, look = seconds(lambda: Look(scorer, image))
    again, _ = seconds(lambda: look.score(masks[:1]), times=3)
    print(f"a region more of an image that was looked at: {again / (first + again):.3f} of the first")


if __name__ == "__main__":
    main()
