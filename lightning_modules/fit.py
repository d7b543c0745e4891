"""A plan put into words: what a training step needs, whether a card holds it, and what to change if it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_modules.plan import GIB, Peak, Plan
from lightning_modules.runs import FINISHED

CARDS = {24: 22.0, 40: 39.0, 48: 44.0, 80: 79.0}  # GB, as they are sold -> GiB that PyTorch finds on the smallest of them, see `usable`


@dataclass(frozen=True)
class Remedy:
    """A change of the configuration, on top of those before it, and the peak it leads to.

    Attributes:
        overrides: as on the command line. why: what it costs. total: bytes of the GPU with it.
    """

    overrides: tuple[str, ...]
    why: str
    total: int


def changes(config: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    """What may be changed in a resolved configuration to need less memory, least harm first."""
    trainer, llm, data = config["trainer"], config["model"].get("llm", {}), config["data"]
    adaptation = llm.get("adaptation", "full")
    if trainer["precision"] == "32-true":
        yield ("trainer.precision=bf16-mixed",), "half the activations, usually no loss"
    if llm.get("plugin") == "hf_causal" and llm.get("dtype", "float32") == "float32" and adaptation != "full":
        yield ("model.llm.dtype=bfloat16",), "half the frozen weights, usually no loss"
    if llm and not llm.get("gradient_checkpointing", False):
        yield ("model.llm.gradient_checkpointing=true",), "the same numbers, a step takes about a third longer"
    if trainer.get("max_tokens"):
        half = (f"trainer.max_tokens={trainer['max_tokens'] // 2}", f"trainer.accumulate={2 * trainer['accumulate']}")
        yield half, "as many tokens a step, in twice as many batches"
    elif trainer["batch_size"] > 1:
        more = trainer["batch_size"] * trainer["accumulate"]
        yield ("trainer.batch_size=1", f"trainer.accumulate={more}"), "as many images a step, one after the other"
    if config["optim"]["optimizer"] == "adamw":
        yield ("optim.optimizer=adamw_8bit",), "the optimizer's state in 8 bits, usually no loss"
    if adaptation == "full" and llm:
        yield ("model.llm.adaptation=lora",), "adapters are trained in place of the language model"
    if llm.get("plugin") == "hf_causal" and adaptation in ("full", "lora"):
        yield ("model.llm.adaptation=qlora",), "the frozen language model in 4 bits, a little less exact"
    if data.get("regions", 1) > 2:
        yield (f"data.regions={data['regions'] // 2}",), "fewer regions an image, so more images for as many"
    if llm and adaptation != "frozen" and llm.get("lora_rank", 8) > 16:
        yield ("model.llm.lora_rank=16",), "smaller adapters"


def remedies(config: Mapping[str, Any], replan: Callable[[Sequence[str]], Plan], before: int, room: int) -> list[Remedy]:
    """Tries `changes` one after the other, planning anew each time, until the peak fits `room` bytes or nothing is left. What saves less
    than a hundredth is not worth changing.

    Args:
        replan: overrides -> the plan with them. before: peak of the configuration as it is.
    """
    found: list[Remedy] = []
    overrides: tuple[str, ...] = ()
    for change, why in changes(config):
        total = replan((*overrides, *change)).training.total
        if total < 0.99 * (found[-1].total if found else before):
            overrides += change
            found.append(Remedy(change, why, total))
        if total <= room:
            break
    return found


def told(plan: Plan, note: str = "") -> str:
    """The plan as a text."""
    lines = [f"{'part':<20}{'parameters':>16}{'trainable':>16}{'weights, GiB':>16}"]
    for name, (count, trainable) in plan.parameters.items():
        lines.append(f"{name:<20}{count:>16,}{trainable:>16,}{plan.weights[name] / GIB:>16.2f}")
    totals = [sum(n for n, _ in plan.parameters.values()), sum(n for _, n in plan.parameters.values())]
    lines.append(f"{'all':<20}{totals[0]:>16,}{totals[1]:>16,}{sum(plan.weights.values()) / GIB:>16.2f}")
    lines += ["", *([f"vision encoder: {plan.levels}"] if plan.levels else [])]
    lines += [f"checkpoint: {plan.checkpoint / GIB:.2f} GiB, what is trained and the optimizer's state"]
    lines += [plan.uncounted] if plan.uncounted else []
    if plan.tokens:
        *each, (_, row) = plan.tokens.items()
        lines.append(f"tokens: {', '.join(f'{name} {count:,}' for name, count in each)}; the longest row {row:,}{note}")
    rows = list(zip(_rows(plan.training), _rows(plan.forward), strict=True))
    lines += ["", f"{'GiB at the worst moment':<44}{'training':>10}{'forward':>10}"]
    lines += [f"{name:<44}{a / GIB:>10.2f}{b / GIB:>10.2f}" for (name, a), (_, b) in rows if a or b]
    return "\n".join([*lines, f"{'GPU memory':<44}{plan.training.total / GIB:>10.2f}{plan.forward.total / GIB:>10.2f}"])


def told_variants(rows: Mapping[str, Mapping[str, Any]], gpu: float | None = None) -> str:
    """The variants of a benchmark, a line each, and what all of them take together.

    Args:
        rows: variant -> its `parameters`, `trainable`, `steps`, bytes of `checkpoint` and of the GPU (`training`), whether it `fits` a card
            of `gpu` GB, and its `state`.
    """
    wide = max(map(len, ("variant", *rows))) + 2
    fits = "" if gpu is None else f"{f'fits {gpu:g} GB':>12}"
    head = f"{'parameters':>16}{'trainable':>16}{'steps':>10}{'checkpoint, MiB':>17}{'training, GiB':>15}{fits}  state"
    lines = [f"{'':>4}{'variant':<{wide}}{head}"]
    for number, (name, row) in enumerate(rows.items(), 1):
        sizes = f"{row['parameters']:>16,}{row['trainable']:>16,}{row['steps']:>10,}"
        memory = f"{row['checkpoint'] / 2**20:>17,.1f}{row['training'] / GIB:>15.2f}"
        fits = "" if gpu is None else f"{'yes' if row['fits'] else 'no':>12}"
        lines.append(f"{number:>3} {name:<{wide}}{sizes}{memory}{fits}  {row['state']}")
    left = [row for row in rows.values() if row["state"] != FINISHED]
    steps, kept = sum(row["steps"] for row in left), sum(row["checkpoint"] for row in rows.values()) / GIB
    return "\n".join(
        [*lines, "", f"{len(left)} of {len(rows)} are to be trained, {steps:,} steps at most; all checkpoints take {kept:.2f} GiB"]
    )


def verdict(plan: Plan, gpu: float, tried: Sequence[Remedy], command: str) -> str:
    """Whether a card of `gpu` GB holds the training, and if not what does."""
    room = usable(gpu) * GIB
    left, card = room - plan.training.total, f"a card of {gpu:g} GB" + (f" ({usable(gpu):g} GiB usable)" if usable(gpu) != gpu else "")
    if left >= 0:
        return f"fits {card}: {left / GIB:.2f} GiB are left" + (" for what is not counted" if plan.uncounted else "")
    lines = [f"does not fit {card}: {-left / GIB:.2f} GiB are missing.", *_steps(plan, tried)]
    if tried and tried[-1].total <= room:
        return "\n".join([*lines, f"so this fits: {command} {' '.join(o for r in tried for o in r.overrides)}"])
    least = min([plan.training.total, *(r.total for r in tried)]) / GIB
    return "\n".join([*lines, f"the least found is {least:.2f} GiB: take a smaller model or a larger card"])


def exhausted(plan: Plan, tried: Sequence[Remedy], step: int, regions: int, card: int | None, room: int) -> str:
    """What to say when the GPU's memory has not sufficed.

    Args:
        plan: of the configuration as it is. tried: what would lower it, see `remedies`.
        regions: of an image of the batch that did not fit. card: bytes of the GPU. room: bytes that were aimed at.
    """
    size, needed = "" if card is None else f" of {card / GIB:.1f} GiB", plan.training.total / GIB
    lines = [f"the GPU{size} has no memory left at step {step}, with {regions} regions an image. Planned were {needed:.2f} GiB."]
    if card is not None and plan.training.total <= card:
        lines += ["That should have fitted: another program may hold a share of the card (nvidia-smi tells)."]
    lines += ["To need less, least harm first:" if tried else "Nothing was found that needs less: take a smaller model or a larger card."]
    lines += _steps(plan, tried)
    if tried:
        enough = tried[-1].total <= room
        what = "so add these to the command" if enough else "that may not be enough; all of them"
        lines += [f"{what}: {' '.join(o for r in tried for o in r.overrides)}"]
    return "\n".join(lines)


def _steps(plan: Plan, tried: Sequence[Remedy]) -> list[str]:
    """A line for each remedy, with what it saves beside those before it."""
    lines, before = [], plan.training.total
    for remedy in tried:
        change = f"{(remedy.total - before) / GIB:+8.2f} GiB -> {remedy.total / GIB:.2f}"
        lines.append(f"  {' '.join(remedy.overrides):<48}{change}  ({remedy.why})")
        before = remedy.total
    return lines


def usable(gpu: float) -> float:
    """GiB that programs can use of a card sold as `gpu` GB, so much for a size that is not in `CARDS`.

    Cards with error correction keep its bits in the same memory: PyTorch finds 22.03 GiB on an L4 or A10G and 44.3 on an L40S; on an RTX
    3090 or 4090 23.7, on an A100 39.4 or 79.1. A size means the smallest of its kind.
    """
    return CARDS.get(int(gpu), gpu) if gpu == int(gpu) else gpu


def cards(plan: Plan) -> str:
    """Which common cards hold it."""
    room = [f"{size} GB {'yes' if plan.training.total <= held * GIB else 'no'}" for size, held in CARDS.items()]
    return f"training fits on cards of: {', '.join(room)}"


def _rows(peak: Peak) -> list[tuple[str, int]]:
    return [
        ("weights", peak.weights),
        ("gradients", peak.gradients),
        ("optimizer", peak.optimizer),
        *((f"activations: {name}", peak.activations.get(name, 0)) for name in _PARTS),
        ("activations: other parts", sum(v for k, v in peak.activations.items() if k not in _PARTS)),
        ("workspace of backward pass or update", peak.workspace),
        ("CUDA context (assumed)", peak.context),
        ("fragments (assumed)", peak.fragments),
    ]


_PARTS = ("vision_encoder", "projector", "region_extractor", "llm", "loss")
