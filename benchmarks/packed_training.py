"""python benchmarks/packed_training.py: all questions about an image in one row, against a sequence for each (region, question).

A language model of random weights reads a prefix of 1,109 tokens (1,024 of them the image's) and branches of 20 tokens, on two threads,
and is trained on them in full: loss, backward pass, gradients of all weights and of the image's and the regions' tokens. "Apart" reads
plain causal sequences, four at a time, with logits where something is taught; "packed" is what `model.packing: image` does. Both are
timed in turns, by the clock and by the time that the processor spent on them, which other work beside it changes less.

With --gpu a step of the published composition at full size with random weights (NF4, LoRA, one image of 512 pixels, 32 regions, three
questions): peak memory, regions a second, and how much of the card's arithmetic is used.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from components.batch import Batch, Labels, Regions
from components.llm_adapters.base import LLMAdapter
from components.llm_adapters.hf_causal import HFCausal
from components.objectives import Objective
from components.prompts import IMAGE, REGION
from components.readouts.base import Target
from components.scorers.base import SCORERS, Scorer
from components.splice import Branch, Packing, pack, splice, supervised_columns

CASES = ((1, 1), (8, 1), (32, 1), (100, 1), (32, 3))  # regions, questions
IMAGE_TOKENS, REGION_TOKENS, TEXT = 1024, 2, 85
CHUNK = 4
SHAPE = {
    "model_type": "llama",
    "vocab_size": 2048,
    "hidden_size": 1024,
    "intermediate_size": 2752,
    "num_hidden_layers": 2,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "max_position_embeddings": 4096,
}


class Side:
    """One way to train on one image's branches: time and gradients add up over what is read."""

    def __init__(self, llm: LLMAdapter, image: Tensor, regions: Tensor, packing: Packing) -> None:
        self.llm, self.packing = llm, packing
        self.leaves = [image.clone().requires_grad_(), regions.clone().requires_grad_()]
        self.tokens, self.loss = 0, 0.0
        self.wall, self.cpu = 0.0, 0.0

    def read(self, prefix: Sequence[int], branches: Sequence[Branch], share: float) -> None:
        """Adds the gradients of `share` times the mean loss of some branches."""
        wall, cpu = time.perf_counter(), time.process_time()
        image, regions = self.leaves
        packed = pack(prefix, [branches], image.shape[1], REGION_TOKENS, packing=self.packing)
        embeddings = splice(self.llm.embed(packed.ids), packed, image, regions)
        columns = supervised_columns(packed)
        logits = self.llm(embeddings, packed.positions, None if packed.plain else packed.branch, keep=columns)
        loss = share * Objective().total(logits, columns, packed)["loss"]
        loss.backward()
        self.wall, self.cpu = self.wall + time.perf_counter() - wall, self.cpu + time.process_time() - cpu
        self.tokens, self.loss = self.tokens + packed.ids.numel(), self.loss + float(loss.detach())

    def gradients(self) -> dict[str, Tensor]:
        """Of all weights and of the image's and the regions' tokens, which start from nothing again."""
        named = [*self.llm.named_parameters(), ("image", self.leaves[0]), ("regions", self.leaves[1])]
        found = {name: p.grad for name, p in named if p.grad is not None}
        for _, p in named:
            p.grad = None
        return found


def questions(regions: int, each: int) -> list[Branch]:
    """Branches of 20 tokens: region, question, and an answer with a level word."""
    ids = iter(torch.randint(3, 2000, (regions * each * 20,)).tolist())

    def some(count: int) -> tuple[int, ...]:
        return tuple(next(ids) for _ in range(count))

    return [
        Branch(r, (REGION, *some(8)), Target(some(11), 4, (10, 20, 30, 40, 50), (0.2,) * 5)) for r in range(regions) for _ in range(each)
    ]


def compare(llm: LLMAdapter, regions: int, each: int, image_tokens: int = IMAGE_TOKENS, turns: int = 3) -> dict[str, float]:
    """One line of the table; packed steps are timed between the chunks of the other side."""
    torch.manual_seed(1)
    prefix = (*torch.randint(3, 2000, (60,)).tolist(), IMAGE, *torch.randint(3, 2000, (TEXT - 60,)).tolist())
    image, tokens = torch.randn(1, image_tokens, llm.width), torch.randn(1, regions, REGION_TOKENS, llm.width)
    branches = questions(regions, each)
    apart, steps = Side(llm, image, tokens, "none"), []
    chunks = [branches[i : i + CHUNK] for i in range(0, len(branches), CHUNK)]
    when = {round(t * len(chunks) / turns) for t in range(turns)}
    sums: dict[str, Tensor] = {}
    for i, chunk in enumerate(chunks):
        if i in when:
            steps.append(Side(llm, image, tokens, "image"))
            steps[-1].read(prefix, branches, 1.0)
            packed_gradients = steps[-1].gradients()
        apart.read(prefix, chunk, len(chunk) / len(branches))
        for name, gradient in apart.gradients().items():
            sums[name] = gradient if name not in sums else sums[name].add_(gradient)
    packed = steps[0]
    assert packed_gradients.keys() == sums.keys()
    difference = torch.stack([(packed_gradients[n] - g).norm() for n, g in sums.items()]).norm()
    ratio = apart.tokens / packed.tokens
    wall, cpu = apart.wall / statistics.mean(s.wall for s in steps), apart.cpu / statistics.mean(s.cpu for s in steps)
    return {
        "regions": regions,
        "questions": each,
        "packed": packed.tokens,
        "apart": apart.tokens,
        "token ratio": ratio,
        "time ratio": wall,
        "of tokens": wall / ratio,
        "CPU ratio": cpu,
        "of tokens ": cpu / ratio,
        "loss apart": abs(packed.loss - apart.loss) / apart.loss,
        "gradients apart": float(difference / torch.stack([g.norm() for g in sums.values()]).norm()),
    }


def published() -> dict[str, Any]:
    """The published composition on a language model of 7 billion parameters in four bits, all weights random."""
    from configs.schema import load_config

    node = copy.deepcopy(load_config("seagull_7b_qlora_24gb").model)
    node["vision_encoder"]["weights"] = node["weights"] = node["llm"]["source"] = ""
    node["llm"]["tokenizer"] = "project"
    return {**node, "train_vision_encoder": False}


def batch_of(scorer: Scorer, regions: int) -> Batch:
    """One image of noise with boxes of many sizes, every question known."""
    side, crop = scorer.preprocess.size, scorer.crop_size
    masks = torch.zeros(1, regions, side, side, dtype=torch.bool)
    for mask in masks[0]:
        top, left, height, width = (torch.rand(4) * side).int().tolist()
        mask[top // 2 : top // 2 + height // 2 + 1, left // 2 : left // 2 + width // 2 + 1] = True
    boxes, known = torch.rand(1, regions, 4), torch.rand(1, regions)
    crops = torch.randn(1, regions, 3, crop, crop)
    labels = Labels(known, known / 5, known, known / 5, (((("blur", "minor"),),) * regions,))
    valid = torch.ones(1, regions, dtype=torch.bool)
    return Batch(torch.randn(1, 3, side, side), Regions(masks, crops, boxes, known, valid), labels)


def part(batch: Batch, start: int, stop: int) -> Batch:
    """Some regions of it."""
    assert batch.labels is not None
    regions = Regions(*(x[:, start:stop] for x in vars(batch.regions).values()))
    scores = [x[:, start:stop] for x in list(vars(batch.labels).values())[:4]]
    return Batch(batch.images, regions, Labels(*scores, tuple(d[start:stop] for d in batch.labels.distortions)))


def arithmetic(scorer: Any, batch: Batch) -> float:
    """Floating-point operations that a step of the language model needs, recomputation left out: of a frozen linear map the output and
    the gradient of its input, of an adapter its own gradient too, and attention to what a token sees."""
    packed = scorer.pack(batch, scorer._image_tokens)
    blocks = [m for m in scorer.llm.modules() if isinstance(m, scorer.llm.blocks)]
    linears = [m for b in blocks for n, m in b.named_modules() if isinstance(m, torch.nn.Linear) and "lora_" not in n]
    frozen = sum(m.in_features * m.out_features for m in linears)
    adapters = sum(p.numel() for b in blocks for p in b.parameters() if p.requires_grad and p.ndim == 2)
    seen = sum(int(n) * int(n) / 2 for n in torch.bincount(packed.branch[0].clamp_min(0)))
    seen += int((packed.branch > 0).sum()) * scorer._prefix_tokens
    return packed.ids.numel() * (4 * frozen + 6 * adapters) + 12 * scorer.llm.width * len(blocks) * seen


def card(scorer: Any, regions: int, device: torch.device, steps: int, together: int, precision: torch.dtype) -> Iterator[dict[str, float]]:
    """Steps of training, packed and apart: seconds, regions a second, peak of memory, arithmetic a second."""
    batch = batch_of(scorer, regions).to(device)
    needed = arithmetic(scorer, batch)
    parameters = [p for p in scorer.parameters() if p.requires_grad]
    if device.type == "cuda":
        import bitsandbytes

        optimizer = bitsandbytes.optim.PagedAdamW8bit(parameters, lr=1e-5)
    else:
        optimizer = torch.optim.AdamW(parameters, lr=1e-5)

    def step(size: int) -> None:
        for start in range(0, regions, size):
            with torch.autocast(device.type, precision):
                loss = scorer.loss(part(batch, start, start + size))["loss"]
            (loss * min(size, regions - start) / regions).backward()
        optimizer.step()
        optimizer.zero_grad()

    for packing, size in (("image", regions), ("none", together)):
        scorer.packing = packing
        step(size)  # warm
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        taken = timed(lambda size=size: step(size), steps, device)
        peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
        yield {
            "packed": packing == "image",
            "seconds": taken,
            "regions/s": regions / taken,
            "GiB": peak / 2**30,
            "TFLOP/s": needed / taken / 1e12,
        }


def timed(do: Callable[[], None], times: int, device: torch.device) -> float:
    """Seconds, the mean of some runs."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(times):
        do()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / times


def on_card(attention: str, regions: int, peak: float) -> None:
    """Prints the packed step and the other."""
    if not torch.cuda.is_available():
        raise SystemExit("--gpu: there is no CUDA device here; without it the comparison runs on the CPU")
    device = torch.device("cuda")
    node = published()
    node["llm"]["attention"] = attention
    with device:
        scorer = SCORERS.build(node)
    scorer.to(device).train()
    for row in card(scorer, regions, device, steps=3, together=4, precision=torch.bfloat16):
        used = f", {100 * row['TFLOP/s'] / peak:.0f} % of {peak:g}" if peak and row["packed"] else ""
        print(
            f"{'packed' if row['packed'] else 'apart':<8}{row['seconds']:8.2f} s a step{row['regions/s']:8.1f} regions/s"
            f"{row['GiB']:8.2f} GiB at the peak{row['TFLOP/s']:8.1f} TFLOP/s of what a packed step needs{used}",
            flush=True,
        )


def main(argv: Sequence[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", action="store_true", help="the published composition at full size on a CUDA device")
    parser.add_argument("--attention", choices=("sdpa", "flex"), default="sdpa", help="with --gpu")
    parser.add_argument("--regions", type=int, default=32, help="with --gpu")
    parser.add_argument("--peak", type=float, default=0.0, metavar="TFLOP/S", help="with --gpu: what the card can do in bfloat16")
    args = parser.parse_args(argv)
    torch.manual_seed(0)
    if args.gpu:
        on_card(args.attention, args.regions, args.peak)
        return
    torch.set_num_threads(2)
    llm = HFCausal(config=SHAPE, tokenizer="project")
    compare(llm, 1, 1)  # warm
    for i, (regions, each) in enumerate(CASES):
        row = compare(llm, regions, each)
        if i == 0:
            print(" ".join(f"{name:>14}" for name in row))
        print(" ".join(f"{value:>14.4g}" for value in row.values()), flush=True)


if __name__ == "__main__":
    main()
