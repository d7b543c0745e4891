"""What a training step will need, found by running it without memory.

The scorer stands on the meta device, its tensors are given shapes and no storage (torch's FakeTensor), and the very step that training
would take is run: loss, backward pass, recomputation where blocks are checkpointed. Every tensor that comes and goes is counted, so
the peak is that of the real step. Only what does not show up as a tensor has a formula of its own: packed weights (bitsandbytes cannot
pack what has no values), attention kernels, the optimizer, and the GPU's own overhead.
"""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from components.batch import Batch, Labels, Regions
from components.llm_adapters.hf_causal import HFCausal, decoder_linears
from components.preprocess import crop_shape
from components.registry import ConfigError
from components.scorers.base import Scorer
from components.vision_encoders.base import VisionEncoder
from lightning_modules.optim import PLAIN, Kind, parameter_groups, state_bytes

GIB = 2**30
CONTEXT = int(0.55 * GIB)  # what CUDA and its libraries take before the first tensor; an assumption
FRAGMENTS = 0.05  # of what comes and goes, lost between blocks of PyTorch's allocator; an assumption
_BACKWARD = "backward"
_NATIVE = "not counted: the regions, which are looked at in their own pixels, one at a time; what they take is seen only in the images"
_PACKED_BYTES: dict[str, Callable[[int, int], int]] = {  # of a weight (out, in), as bitsandbytes stores it
    # two values a byte; a byte of scale for 64 values; four bytes of scale for 256 scales
    "nf4": lambda out, inp: out * inp // 2 + -(-out * inp // 64) + 4 * -(-out * inp // (64 * 256)),
    "int8": lambda out, inp: out * inp + 4 * out,
}


@dataclass(frozen=True)
class Peak:
    """Bytes at the worst moment.

    Attributes:
        weights, gradients, optimizer: of what they say.
        activations: part of the scorer -> bytes that its forward pass made and that are still held.
        workspace: bytes that the backward pass has made beside gradients.
        context, fragments: assumptions, see `CONTEXT` and `FRAGMENTS`.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: Mapping[str, int]
    workspace: int
    context: int = CONTEXT
    fragments: int = 0

    @property
    def tensors(self) -> int:
        """All but the assumptions: what `torch.cuda.max_memory_allocated` would say."""
        return self.weights + self.gradients + self.optimizer + sum(self.activations.values()) + self.workspace

    @property
    def total(self) -> int:
        """Bytes of the GPU."""
        return self.tensors + self.context + self.fragments


@dataclass(frozen=True)
class Plan:
    """What training a scorer needs.

    Attributes:
        parameters: part -> (all, trainable).
        weights: part -> bytes, as they stand in memory.
        checkpoint: bytes of last.ckpt: what is trained, and the optimizer's state, paged or not.
        training: the peak of a step. forward: of the same pass without gradients, from which scoring differs by the key-value cache.
        tokens: of a packed row: prefix, each question with its answer, the whole row; empty for a scorer without a language model.
        levels: what the vision encoder gives, in words; "" for a scorer without one.
        uncounted: what is not in it, in words; "" for nothing.
    """

    parameters: Mapping[str, tuple[int, int]]
    weights: Mapping[str, int]
    checkpoint: int
    training: Peak
    forward: Peak
    tokens: Mapping[str, int] = field(default_factory=dict)
    levels: str = ""
    uncounted: str = ""


def plan(
    scorer: Scorer,
    *,
    batch_size: int,
    regions: int,
    precision: str = "32-true",
    accumulate: int = 1,
    optimizer: Kind = "adamw",
    shards: int = 1,
) -> Plan:
    """Runs a training step of `scorer`, which is built on the meta device, without memory.

    Args:
        batch_size: images a batch. regions: of each image.
        precision: as `trainer.precision`.
        accumulate: batches per optimizer step; above 1, gradients wait while the next batch runs.
        optimizer: as `optim.optimizer`. Of a paged one, what can be paged is not counted: it gives way.
        shards: GPUs among which every parameter is divided (trainer.strategy=fsdp); the plan is that of one of them.

    Raises:
        ValueError: the scorer is not on the meta device.
    """
    if any(not p.is_meta for p in scorer.parameters()):
        raise ValueError("a plan is made of a scorer on the meta device: build it under torch.device('meta')")
    parameters = {name: _sizes(part) for name, part in scorer.parts().items()}
    keys = scorer.trained_keys()
    kept = sum(_bytes(x) for name, x in scorer.state_dict().items() if name in keys)
    fakes = FakeTensorMode(allow_non_fake_inputs=True)
    _pack_weights(scorer)
    _without_memory(scorer, fakes)
    weights = {name: _bytes_of(part) for name, part in scorer.parts().items()}
    trainable = {name: p for name, p in scorer.named_parameters() if p.requires_grad}
    gradients = sum(map(_bytes, trainable.values()))
    saved, state = state_bytes(optimizer, trainable)
    batch = _batch(scorer, fakes, batch_size, regions)
    tokens = _tokens(scorer, batch)

    forward = _run(scorer, batch, precision, train=False)
    step = _run(scorer, batch, precision, train=True)
    waiting = gradients - step.gradients if accumulate > 1 else 0
    share, gathered = _sharing(scorer, shards)
    held = share(sum(weights.values()))
    during = Peak(held + gathered[0], share(step.gradients + waiting) + gathered[1], share(state), step.activations, step.workspace)
    # PyTorch works on a group of parameters at once (foreach), with a copy of their second moment, and of gradients to which decay is
    # added; bitsandbytes one by one, in place
    groups = parameter_groups(scorer.parts(), 1.0, {}, 0.0, optimizer) if optimizer in PLAIN else []
    most = max((sum(map(_bytes, group["params"])) for group in groups), default=0) * (2 if optimizer == "adam" else 1)
    update = Peak(held, share(gradients), share(state), {}, share(most))
    training = max(during, update, key=lambda peak: peak.tensors)
    ungraded = Peak(held + gathered[0], 0, 0, forward.activations, 0)
    encoder = scorer.parts().get("vision_encoder")
    levels = encoder.told() if isinstance(encoder, VisionEncoder) else ""
    uncounted = _NATIVE if scorer.preprocess.native else ""
    return Plan(parameters, weights, kept + saved, _with_fragments(training), _with_fragments(ungraded), tokens, levels, uncounted)


def _sharing(scorer: Scorer, shards: int) -> tuple[Callable[[int], int], tuple[int, int]]:
    """What a GPU keeps of so many bytes that are divided among `shards`; and the weights and gradients that it holds whole at the worst
    moment: all outside the blocks, the block at work and the next one."""
    if shards == 1:
        return lambda size: size, (0, 0)
    blocks = [m for m in scorer.modules() if isinstance(m, scorer.blocks)]
    inside = {id(p) for block in blocks for p in block.parameters()}
    outside = [p for p in scorer.parameters() if id(p) not in inside]
    largest: list[Tensor] = max(([*block.parameters()] for block in blocks), key=lambda ps: sum(map(_bytes, ps)), default=[])
    whole = [*outside, *largest, *largest]
    return lambda size: -(-size // shards), (sum(map(_bytes, whole)), sum(_bytes(p) for p in whole if p.requires_grad))


def without_files(node: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """A scorer's plugin node such that it can be built where the language model's files are not at hand, and what to say about it.

    Raises:
        ConfigError: an `hf_causal` whose source is not here and whose architecture is not stated.
    """
    out, note = dict(node), ""
    for key, part in node.items():
        if not (isinstance(part, Mapping) and part.get("plugin") == "hf_causal"):
            continue
        if part.get("attention") == "flex":  # which runs on real tensors alone
            out[key] = part = {**part, "attention": "sdpa"}
            note = "\n        (counted with attention sdpa, whose masks flex does without)"
        if not part.get("source"):
            continue
        needed = "config.json" if not part.get("config") else None
        words = part.get("tokenizer") or part["source"]
        if needed and not _at_hand(part["source"], needed):
            raise ConfigError(
                f"model.{key}: {part['source']} is not at hand, so its size is not known. State its architecture "
                f"(model.{key}.config, as configs/model/seagull_7b.yaml does), or fetch it first"
            )
        if words != "project" and not any(_at_hand(words, name) for name in ("tokenizer.json", "tokenizer_config.json")):
            out[key] = {**part, "tokenizer": "project"}
            note += f"\n        (counted with this project's tokenizer, as that of {words} is not at hand)"
    return out, note


def _at_hand(source: str, name: str) -> bool:
    """Whether a file of a model is in a local folder or in the hub's cache."""
    if Path(source).is_dir():
        return (Path(source) / name).is_file()
    try:
        return isinstance(try_to_load_from_cache(source, name), str)
    except HFValidationError:  # a path, and nothing there
        return False


@dataclass(frozen=True)
class _Step:
    gradients: int
    activations: dict[str, int]
    workspace: int


def _run(scorer: Scorer, batch: Batch, precision: str, train: bool) -> _Step:
    """The worst moment of one step, or of one forward pass without gradients."""
    counter = _Counter(scorer)
    scorer.train(train)
    half = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision)
    with _seeded(), _fused_attention(), _hurried(), counter, counter.watching(), torch.set_grad_enabled(train):
        with torch.autocast("cpu", half or torch.bfloat16, enabled=half is not None):
            loss = scorer.loss(batch)["loss"]
        if train:
            counter.part = _BACKWARD
            loss.backward()
    for p in scorer.parameters():
        p.grad = None
    worst = dict(counter.worst)
    return _Step(worst.pop("gradients", 0), {k: v for k, v in worst.items() if k != _BACKWARD and v}, worst.get(_BACKWARD, 0))


@contextmanager
def _seeded() -> Iterator[None]:
    """Draws the same each time: how many judgments are asked decides how long a row is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@contextmanager
def _hurried() -> Iterator[None]:
    """Spares what costs a third of the time: FakeTensor asks at every step whether there is a GPU, and Python looks for cycles."""
    original, collecting = torch.cuda.is_available, gc.isenabled()
    torch.cuda.is_available = lambda: False
    gc.disable()
    try:
        yield
    finally:
        torch.cuda.is_available = original
        if collecting:
            gc.enable()


class _Counter(TorchDispatchMode):
    """Bytes that live, by the part of the scorer that made them, and how they stood at the worst moment."""

    def __init__(self, scorer: Scorer) -> None:
        super().__init__()
        self.part = "loss"
        self.live: Counter[str] = Counter()
        self.worst: dict[str, int] = {}
        self._most, self._total = 0, 0
        self._scorer = scorer
        self._owner = {id(m): name for name, part in scorer.parts().items() for m in part.modules()}
        self._known: dict[int, tuple[Any, str]] = {}
        for x in (*scorer.parameters(), *scorer.buffers()):
            self._known[x.untyped_storage()._cdata] = (x.untyped_storage(), "weights")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, Tensor):
                self._see(x)
        return out

    def _see(self, x: Tensor) -> None:
        storage = x.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known[key] = (weakref.ref(storage, lambda _: self._gone(key, size)), self.part)
        self._add(self.part, size)

    def _gone(self, key: int, size: int) -> None:
        _, part = self._known.pop(key)
        self._add(part, -size)

    def _add(self, part: str, size: int) -> None:
        self.live[part] += size
        self._total += size
        if self._total > self._most:
            self._most, self.worst = self._total, dict(self.live)

    def _accumulated(self, p: Tensor) -> None:
        assert p.grad is not None
        key = p.grad.untyped_storage()._cdata
        if key in self._known and self._known[key][1] != "gradients":
            holder, part = self._known[key]
            size = p.grad.untyped_storage().nbytes()
            self._known[key] = (holder, "gradients")
            self.live[part] -= size
            self.live["gradients"] += size

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Notes which part is at work, and which tensors have become gradients."""
        stack: list[str] = []

        def enter(module: nn.Module, args: Any) -> None:
            stack.append(self.part)
            if self.part != _BACKWARD:
                self.part = self._owner.get(id(module), self.part)

        def leave(module: nn.Module, args: Any, out: Any) -> None:
            before = stack.pop()
            self.part = self.part if self.part == _BACKWARD else before

        hooks: list[Any] = [
            nn.modules.module.register_module_forward_pre_hook(enter),
            nn.modules.module.register_module_forward_hook(leave, always_call=True),
        ]
        hooks += [p.register_post_accumulate_grad_hook(self._accumulated) for p in self._scorer.parameters() if p.requires_grad]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


@contextmanager
def _fused_attention() -> Iterator[None]:
    """Attention as a fused kernel takes it: it keeps its inputs, its output and a number per row, not the table of weights."""

    def fused(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
        if torch.is_autocast_enabled("cpu"):
            query, key, value = (x.to(torch.get_autocast_dtype("cpu")) for x in (query, key, value))
        out: Tensor = _Fused.apply(query, key, value, attn_mask)
        return out

    original = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = fused  # a mode would not reach what is recomputed in the backward pass
    try:
        yield
    finally:
        F.scaled_dot_product_attention = original


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        bias = query.new_empty(mask.shape) if mask is not None and mask.dtype == torch.bool else mask  # the kernel takes it as numbers
        out = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, out, bias, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        query, key, value, *_ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value), None


class _Packed(nn.Module):
    """A frozen linear map whose weight is stored packed, and unpacked for each use."""

    def __init__(self, linear: nn.Linear, kind: str) -> None:
        super().__init__()
        self.shape = linear.weight.shape
        self.register_buffer("packed", torch.empty(_PACKED_BYTES[kind](*self.shape), dtype=torch.uint8, device="meta"))
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_autocast_enabled("cpu"):
            x = x.to(torch.get_autocast_dtype("cpu"))
        y: Tensor = _Unpacked.apply(x, self.packed, self.shape)
        return y if self.bias is None else y + self.bias


class _Unpacked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, packed: Tensor, shape: torch.Size) -> Tensor:
        ctx.packed, ctx.shape = packed, shape
        return x @ packed.new_empty(shape, dtype=x.dtype).T

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad @ ctx.packed.new_empty(ctx.shape, dtype=grad.dtype), None, None


def _pack_weights(scorer: Scorer) -> None:
    """Puts stand-ins for the linear maps that bitsandbytes will pack when weights are read."""
    for llm in [m for m in scorer.modules() if isinstance(m, HFCausal) and m.quantization != "none"]:
        for parent, name, linear in decoder_linears(llm.model):
            setattr(parent, name, _Packed(linear, llm.quantization))


def _without_memory(scorer: Scorer, mode: FakeTensorMode) -> None:
    """Replaces every parameter and buffer by one of the same shape, on a CPU that has no memory."""
    made: dict[int, nn.Parameter] = {}
    for module in scorer.modules():
        for name, p in module._parameters.items():
            if p is not None:
                if id(p) not in made:
                    made[id(p)] = nn.Parameter(_fake(p.data, mode), p.requires_grad)
                module._parameters[name] = made[id(p)]
        for name, b in module._buffers.items():
            if b is not None:
                module._buffers[name] = _fake(b, mode)


def _fake(x: Tensor, mode: FakeTensorMode) -> Tensor:
    return FakeTensor(mode, x.to("meta"), torch.device("cpu"))


def _batch(scorer: Scorer, mode: FakeTensorMode, images: int, regions: int) -> Batch:
    """A batch of the scorer's geometry, every question known; only its pictures have no memory. Regions that are looked at in their own
    pixels are padding: how large they are is not known."""

    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return _fake(torch.empty(*shape, dtype=dtype, device="meta"), mode)

    side, crop = scorer.preprocess.size, crop_shape(scorer.crop_size)
    known = torch.full((images, regions), 0.5)
    return Batch(
        empty(images, 3, side, side),
        Regions(
            masks=empty(images, regions, side, side, dtype=torch.bool),
            crops=empty(images, regions, 3, *crop),
            boxes=empty(images, regions, 4),
            areas=empty(images, regions),
            valid=torch.full((images, regions), not scorer.preprocess.native),
        ),
        Labels(known, known / 5, known, known / 5, (((("blur", "minor"),),) * regions,) * images),
        tuple(tuple(f"{i}.{r}" for r in range(regions)) for i in range(images)),
        clean=empty(images, regions, 3, *crop) if scorer.needs_clean else None,
    )


def _tokens(scorer: Scorer, batch: Batch) -> dict[str, int]:
    pack = getattr(scorer, "packed_lengths", None)
    with _seeded():
        return {} if pack is None else dict(pack(batch))


def _with_fragments(peak: Peak) -> Peak:
    moving = peak.gradients + sum(peak.activations.values()) + peak.workspace
    return Peak(peak.weights, peak.gradients, peak.optimizer, peak.activations, peak.workspace, peak.context, int(FRAGMENTS * moving))


def _sizes(part: nn.Module) -> tuple[int, int]:
    counts = [(p.numel(), p.requires_grad) for p in part.parameters()]
    return sum(n for n, _ in counts), sum(n for n, trained in counts if trained)


def _bytes(x: Tensor) -> int:
    return x.numel() * x.element_size()


def _bytes_of(part: nn.Module) -> int:
    return sum(_bytes(x) for x in (*part.parameters(), *part.buffers()))
