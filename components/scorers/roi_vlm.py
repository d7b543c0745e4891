"""SEAGULL's composition (reference facts 1.1): vision encoder, projector, region extractor, language model, a readout per task."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from components.batch import Batch, Pyramid, Regions
from components.cache import ROOM
from components.footprint import working_bytes
from components.geometry import GeometryToken
from components.llm_adapters.base import LLMAdapter
from components.objectives import Objective
from components.preprocess import CropEdges, crop_shape
from components.projector import Projector
from components.prompts import IMAGE, Conversation, Dialogue
from components.prompts import VERSION as PROMPTS_VERSION
from components.reading import Prefixes, converse
from components.readouts.base import READOUTS, Readout
from components.region_extractors.base import RegionExtractor
from components.registry import ConfigError, Part
from components.scorers.base import SCORERS, Scorer
from components.splice import Packed, Packing, expand, pack, splice, supervised_columns
from components.standardize import Standardize
from components.tasks import TASKS, RegionScores, Task
from components.teaching import Teaching
from components.vision_encoders.base import VisionEncoder
from components.weights import check_source, load_weights

_CROPS, _PIXELS = 32, 2**20  # of crops that are encoded together without gradients, at most; one of each image at least
_KERNELS = 2  # a pass takes so many times its tensors, with what kernels take within and gaps between blocks: 1.0 to 1.8 on a CPU
ANSWER = 16  # tokens of an answer, about, for the budget of memory
_DEFAULT_READOUTS = {"quality": "levels", "importance": "levels", "distortion": "text"}


@dataclass(frozen=True)
class Seen:
    """What is kept of images: what the region extractor made of them, and what the language model has read, of all of them at once
    or of one after the other."""

    prepared: Any
    prefixes: tuple[Prefixes, ...]


@SCORERS.register("roi_vlm")
class RoiVLM(Scorer):
    """A vision-language model that is shown an image and asked about its regions.

    Args:
        readouts: task -> readout; a task that is not named is neither taught nor asked. Null: levels for the scores, text for
            the distortion.
        standardize: bring each channel of the pyramid to zero mean and unit variance over the training images (see
            `components.standardize`).
        geometry_token: one more token for each region, of its size, place and shape, whatever its extractor (see `components.geometry`).
        image_level: pyramid level whose cells become the image's tokens.
        image_pool: side of the square of cells averaged to one image token.
        objective: weights of the training's terms, {text: 1.0, levels: 1.0, rank: 0.0, judgments: 0.0}; those not named keep these
            (see `components.objectives.Objective`).
        task_shares: task -> share of its known labels that a training step asks about ({importance: 0.5}), drawn anew each time a region
            is seen; all of a task that is not named. Mixes the tasks, as `data.weights` of a `mixture` mixes data sets.
        conversation: "seagull_v1" is the released wording, "chat" the tokenizer's own template around the same message, "brief"
            one word per question.
        packing: "image" reads all questions about an image in one row, its tokens once; "none" gives each (region, question) a row of
            its own, as published: the same loss and gradients, for an image's tokens read again each time.
        max_branches: regions of an image whose questions are read at once when scoring; bounds memory, does not change scores.
        crop_edges: "released" cuts a region's crop without its last row and column, as the released code does (reference facts 1.10).
        train_vision_encoder: null trains the encoder exactly when its weights are random.
        weights: a .safetensors file with the tensors of projector and region extractor ("projector.mlp.0.weight", ...), as an
            imported checkpoint has them; "" for random ones. Those of encoder and language model are theirs to name.
    """

    sources = ("weights",)

    def __init__(
        self,
        *,
        vision_encoder: Part[VisionEncoder],
        region_extractor: Part[RegionExtractor],
        llm: Part[LLMAdapter],
        readouts: dict[str, Part[Readout]] | None = None,
        projector: Literal["mlp2x_gelu", "linear"] = "mlp2x_gelu",
        standardize: bool = False,
        geometry_token: bool = False,
        image_level: int = 2,
        image_pool: int = 1,
        objective: dict[str, float] | None = None,
        task_shares: dict[str, float] | None = None,
        conversation: Conversation = "seagull_v1",
        packing: Packing = "image",
        max_branches: int = 32,
        crop_edges: CropEdges = "inclusive",
        train_vision_encoder: bool | None = None,
        weights: str = "",
    ) -> None:
        super().__init__()
        check_source(weights, library="")
        self.weights = weights
        self.vision_encoder, self.llm = vision_encoder(), llm()
        if packing == "image":
            self.llm.check_packed()
        channels = self.vision_encoder.channels
        if not -len(channels) <= image_level < len(channels):
            raise ConfigError(f"image_level {image_level}: the vision encoder has {len(channels)} levels, 0 to {len(channels) - 1}")
        self.standardize = Standardize(channels) if standardize else None
        self.projector = Projector(channels[image_level], self.llm.width, kind=projector, level=image_level, pool=image_pool)
        self.region_extractor = region_extractor(channels, self.vision_encoder.sizes, self.llm.width)
        self.geometry = GeometryToken(self.llm.width) if geometry_token else None
        self.tokens = self.region_extractor.tokens + geometry_token  # of a region
        outline = self.region_extractor.outline
        self.preprocess = dataclasses.replace(self.vision_encoder.preprocess, crop_edges=crop_edges, outline=outline)
        self.crop_size = self.region_extractor.crop_size or (self.preprocess.size if outline else 0)
        if self.region_extractor.shares_encoder:
            self.vision_encoder.check_size(self.crop_size, "size" if outline else "crop_size")
        self.blocks = self.vision_encoder.blocks + self.region_extractor.blocks + self.llm.blocks
        if not (not self.vision_encoder.has_weights if train_vision_encoder is None else train_vision_encoder):
            self.vision_encoder.requires_grad_(False)

        self.dialogue = Dialogue(self.llm.tokenizer, conversation)
        if readouts is None:
            readouts = {task: READOUTS.part({"plugin": name}) for task, name in _DEFAULT_READOUTS.items()}
        parts = readouts
        if not parts:
            raise ConfigError(f"readouts: name one task at least, of {', '.join(TASKS)}; null asks all of them")
        if set(parts) - set(TASKS):
            raise ConfigError(f"readouts: tasks are {', '.join(TASKS)}, got {', '.join(sorted(set(parts) - set(TASKS)))}")
        self.readouts = nn.ModuleDict({task: part(self.dialogue, self.llm.width) for task, part in parts.items()})
        self.tasks = tuple(task for task in TASKS if task in parts)
        for task in self.tasks:
            self._readout(task).check(task)
        self.objective = Objective.of(objective)
        taught = {task: self._readout(task) for task in self.tasks}
        self.teaching = Teaching(self.dialogue, taught, self.objective.judgments, task_shares)
        if self.objective.rank and not self.teaching.has_levels:
            raise ConfigError(
                f"objective.rank: got {self.objective.rank}, but no task is taught as a distribution over level words, which is what is "
                "ranked: give one the readout 'levels' with soft: true, or set objective.rank to 0"
            )
        self.packing, self.max_branches = packing, max_branches

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The objective, per known answer about a region.

        Judgments are asked beside the answers and do not count among them, so that they leave the weight of the rest as it is.
        """
        assert batch.labels is not None
        pyramid = self._pyramid(batch)
        image_tokens, region_tokens = self.projector(pyramid), self._region_tokens(self.region_extractor.prepare(pyramid), batch.regions)
        packed = self.pack(batch, image_tokens.shape[1])
        columns = supervised_columns(packed)
        if len(packed.score):
            logits, states = self.llm.with_states(*self._row(packed, image_tokens, region_tokens, columns))
            losses = self.objective.total(logits, columns, packed, self._regressed(states, columns, packed))
        else:
            losses = self.objective.total(self.read(packed, image_tokens, region_tokens, columns), columns, packed)
        if self.training and self.objective.judgments:
            losses.setdefault(
                "judgment", losses["loss"].new_zeros(())
            )  # by chance none was asked; the entries are the same for all batches
        return losses

    def see(self, images: Tensor) -> Pyramid:
        """images (B, 3, H, W) -> what the projector and the region extractor work on."""
        pyramid: Pyramid = self.vision_encoder(images)
        return pyramid if self.standardize is None else self.standardize(pyramid)

    @property
    def can_precompute(self) -> bool:
        """See the contract."""
        return not any(p.requires_grad for p in self.vision_encoder.parameters())

    @torch.no_grad()
    def precompute(self, batch: Batch) -> Batch:
        """See the contract."""
        if not self.can_precompute:
            raise ValueError("the vision encoder is trained, so what it sees changes: nothing can be precomputed")
        device, training = next(self.vision_encoder.parameters()).device, self.vision_encoder.training
        pyramid = self.vision_encoder.eval()(batch.images.to(device)).to(torch.float16)
        self.vision_encoder.train(training)
        for level, x in enumerate(pyramid.maps):
            if not torch.isfinite(x).all():
                raise ValueError(f"features of level {level} exceed half precision (65504): set trainer.cache_features to off")
        return dataclasses.replace(
            batch.to(device), images=batch.images.new_empty(len(batch.images), 3, 0, 0, device=device), pyramid=pyramid
        )

    @torch.no_grad()
    def calibrate(self, batches: Iterable[Batch]) -> None:
        if self.standardize is not None:
            device, training = next(self.parameters()).device, self.training
            self.eval()
            self.standardize.fit(self.vision_encoder(batch.images.to(device)) for batch in batches)
            self.train(training)

    def pack(self, batch: Batch, image_tokens: int) -> Packed:
        """Questions and answers of a labelled batch as packed rows; in training also judgments."""
        assert batch.labels is not None
        labels = batch.labels.to("cpu")  # once: reading single numbers from a GPU would wait for it each time
        branches = self.teaching.branches(labels, self.training)
        return pack(self.dialogue.prefix, branches, image_tokens, self.tokens, batch.images.device, self.packing)

    def packed_lengths(self, batch: Batch) -> dict[str, int]:
        """Tokens of the prefix, of each task's branch about the first region, and of the longest row."""
        assert batch.labels is not None
        first, *_ = self.teaching.branches(batch.labels, training=False)
        each = {str(branch.task): branch.tokens(self.tokens) for branch in first if branch.region == 0}
        return {"prefix": self._prefix_tokens, **each, "row": self.pack(batch, self._image_tokens).ids.shape[1]}

    def row_tokens(self, regions: NDArray[np.int64], types: int) -> NDArray[np.int64]:
        """See the contract: every question about every region, each with its longest answer."""
        lengths = [n for task in self.tasks for n in self.teaching.longest(task, self.tokens, types)]
        if self.packing == "none":
            return regions * len(lengths) * (self._prefix_tokens + max(lengths))
        return self._prefix_tokens + regions * sum(lengths)

    def read(self, packed: Packed, image_tokens: Tensor, region_tokens: Tensor, columns: Tensor) -> Tensor:
        """Packed rows -> logits (P, N, V) at `columns` (N,)."""
        logits: Tensor = self.llm(*self._row(packed, image_tokens, region_tokens, columns))
        return logits

    def score_batch(self, batch: Batch, tasks: Sequence[Task]) -> list[list[RegionScores]]:
        return self.answer(self.look(batch), batch.regions, tasks)

    @torch.no_grad()
    def look(self, batch: Batch) -> Seen:
        """See the contract: the images are encoded, and the language model has read them."""
        pyramid = self._pyramid(batch)
        image_tokens: Tensor = self.projector(pyramid)
        read = [image_tokens] if self.packing == "image" else image_tokens.split(1)
        return Seen(self.region_extractor.prepare(pyramid), tuple(self._read_prefixes(tokens) for tokens in read))

    @torch.no_grad()
    def answer(self, seen: Seen, regions: Regions, tasks: Sequence[Task]) -> list[list[RegionScores]]:
        """See the contract: all questions about `max_branches` regions of each image are read at once, or without packing one by one."""
        self.check_tasks(tasks)
        tokens = self._region_tokens(seen.prepared, regions)
        words = {task: self._asked(task, tokens.device) for task in tasks}
        scores: list[list[RegionScores]] = [[{} for _ in range(n)] for n in regions.valid.sum(1).tolist()]
        for at in range(0, regions.valid.shape[1], self.max_branches):
            some = torch.nonzero(regions.valid[:, at : at + self.max_branches]).tolist()
            pairs = [(b, at + r, task) for b, r in some for task in tasks]
            questions = [torch.cat([tokens[b, r].to(words[task].dtype), words[task]]) for b, r, task in pairs]
            talks = [self._readout(task).talk(task) for _, _, task in pairs]
            if self.packing == "image":
                answers = converse(self.llm, seen.prefixes[0], questions, [b for b, _, _ in pairs], talks, self.dialogue)
            else:
                each = zip(pairs, questions, talks, strict=True)
                answers = [a for (b, *_), q, t in each for a in converse(self.llm, seen.prefixes[b], [q], [0], [t], self.dialogue)]
            for (b, r, task), answer in zip(pairs, answers, strict=True):
                scores[b][r][task] = answer
        return scores

    def answer_bytes(self, size: tuple[int, int], regions: int) -> int:
        """See the contract; here also what a shared encoder makes of the crops that it sees at once, what the language model reads at once,
        and its copy of what it has read of the image."""
        words = sum(len(self.dialogue.questions[task]) for task in self.tasks)
        at_once = (min(regions, self.max_branches), len(self.tasks)) if self.packing == "image" else (1, 1)
        read = at_once[0] * (words + len(self.tasks) * (self.tokens + ANSWER))
        kept, working = self.llm.token_bytes
        each = kept + working + 4 * self._prefix_tokens  # and its row of the mask
        logits = 3 * 4 * at_once[0] * at_once[1] * len(self.llm.tokenizer)
        copied = self._prefix_tokens * kept * (ROOM + 1) // ROOM
        seen = min(regions, self._crops_at_once) * self._crop_bytes if self.region_extractor.shares_encoder else 0
        return super().answer_bytes(size, regions) + seen + copied + read * each + logits

    @property
    def coupled(self) -> bool:
        """See the contract."""
        return self.region_extractor.coupled

    def wording(self) -> dict[str, str]:
        """See the contract."""
        return {"conversation": self.dialogue.conversation, "version": PROMPTS_VERSION}

    def parts(self) -> dict[str, nn.Module]:
        return {
            "vision_encoder": self.vision_encoder,
            **({} if self.standardize is None else {"standardize": self.standardize}),
            "projector": self.projector,
            "region_extractor": self.region_extractor,
            **({} if self.geometry is None else {"geometry": self.geometry}),
            "llm": self.llm,
            "readouts": self.readouts,
        }

    def check_trained(self, state: Mapping[str, Tensor]) -> None:
        """See the contract."""
        own = "region_extractor."
        self.region_extractor.check_state({k.removeprefix(own): x for k, x in state.items() if k.startswith(own)})
        super().check_trained(state)

    def load_pretrained(self) -> None:
        self.vision_encoder.load_pretrained()
        if self.weights:
            trained = nn.ModuleDict({"projector": self.projector, "region_extractor": self.region_extractor})
            load_weights(trained, self.weights, may_lack=tuple(f"region_extractor.{p}" for p in self.region_extractor.neutral))
        self.llm.load_pretrained()

    def _pyramid(self, batch: Batch) -> Pyramid:
        if batch.pyramid is None:
            return self.see(batch.images)
        pyramid = batch.pyramid.to(torch.float32)
        return pyramid if self.standardize is None else self.standardize(pyramid)

    def _region_tokens(self, prepared: Any, regions: Regions) -> Tensor:
        if self.region_extractor.shares_encoder:
            some = [self.region_extractor(self._crops(part), part) for part in self._parts(regions)]
            tokens: Tensor = torch.cat(some, 1)  # (B, R, K, D)
        else:
            tokens = self.region_extractor(prepared, regions)  # (B, R, K, D)
        return tokens if self.geometry is None else torch.cat([tokens, self.geometry(regions).to(tokens.dtype)], 2)

    def _parts(self, regions: Regions) -> list[Regions]:
        """So many regions of each image that a shared encoder may see the crops of all images' at once; with gradients, or where they
        change each other's tokens, all of them."""
        images, count = regions.valid.shape
        step = max(1, count if torch.is_grad_enabled() or self.coupled else self._crops_at_once // images)
        return [regions.between(at, at + step) for at in range(0, max(1, count), step)]

    @property
    def _crops_at_once(self) -> int:
        """How many crops a shared encoder sees at once without gradients."""
        return max(1, min(_CROPS, _PIXELS // math.prod(crop_shape(self.crop_size))))

    @functools.cached_property
    def _crop_bytes(self) -> int:
        """What a shared encoder needs for one crop: the crop itself, apart from the others, and what is made of it."""
        steps = [step for step in (self.vision_encoder, self.standardize) if step is not None]
        shape = (1, 3, *crop_shape(self.crop_size))
        return 4 * math.prod(shape) + _KERNELS * working_bytes(nn.Sequential(*steps), shape)

    def _crops(self, regions: Regions) -> Pyramid:
        """What the encoder sees of the valid regions' crops; padding must not reach its batch norms."""
        crops = regions.crops.flatten(0, 1)[torch.nonzero(regions.valid.flatten())[:, 0]]  # (V, 3, S, S)
        if not len(crops):  # of which a batch norm would make nothing
            return Pyramid(tuple(crops.new_zeros(0, c, 1, 1) for c in self.vision_encoder.channels))
        return self.see(crops)

    @property
    def _image_tokens(self) -> int:
        return math.prod(self.vision_encoder.sizes[self.projector.level]) // self.projector.pool**2

    @functools.cached_property
    def _prefix_tokens(self) -> int:
        return len(expand(self.dialogue.prefix, self._image_tokens, 0))

    def _read_prefixes(self, image_tokens: Tensor) -> Prefixes:
        """Reads system text and image once: image_tokens (B, N, D)."""
        ids = expand(self.dialogue.prefix, image_tokens.shape[1], 0)
        slots = torch.tensor([i == IMAGE for i in ids], device=image_tokens.device)
        embedded = self.llm.embed(torch.tensor(ids, device=image_tokens.device).clamp_min(0)).repeat(len(image_tokens), 1, 1)
        embedded[:, slots] = image_tokens.to(embedded.dtype)
        cache = self.llm.new_cache()
        positions = torch.arange(len(ids), device=image_tokens.device).expand(len(image_tokens), -1)
        self.llm(embedded, positions, cache=cache, keep=positions[0, -1:])
        return Prefixes(cache, len(ids), len(image_tokens))

    def _asked(self, task: Task, device: torch.device) -> Tensor:
        """(L, D), what is read behind a region's tokens: the question, and the readout's own token where it has one."""
        words, own = self.llm.embed(torch.tensor(self.dialogue.questions[task][1:], device=device)), self._readout(task).token
        return words if own is None else torch.cat([words, own[None].to(words.dtype)])

    def _row(
        self, packed: Packed, image_tokens: Tensor, region_tokens: Tensor, columns: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None, None, Tensor]:
        """What the language model is given of packed rows."""
        asked = self._score_tasks(packed) if len(packed.score) else []
        tokens = [t for t in (self._readout(TASKS[i]).token for i in asked) if t is not None]
        own = torch.stack(tokens) if tokens else None
        embeddings = splice(self.llm.embed(packed.ids), packed, image_tokens, region_tokens, own)
        return embeddings, packed.positions, None if packed.plain else packed.branch, None, columns

    def _regressed(self, states: Tensor, columns: Tensor, packed: Packed) -> tuple[Tensor, Tensor]:
        """States (P, N, D) at `columns` -> means and logarithms of variances at `packed.score`, each by the readout of its task."""
        row, column = packed.score.unbind(1)
        own = states[row, torch.searchsorted(columns, column.contiguous())]
        tasks = torch.tensor(self._score_tasks(packed), device=own.device)
        out = own.new_zeros(len(own), 2)
        for i in tasks.unique().tolist():
            chosen = torch.nonzero(tasks == i)[:, 0]
            out = out.index_copy(0, chosen, torch.stack(self._readout(TASKS[i]).regress(own[chosen]), -1))
        mean, log_variance = out.unbind(-1)
        return mean, log_variance

    def _score_tasks(self, packed: Packed) -> list[int]:
        """The task, as its place in TASKS, of each of `packed.score`."""
        return (packed.topic[packed.score_answer] % len(TASKS)).tolist()

    def _readout(self, task: Task) -> Readout:
        readout = self.readouts[task]
        assert isinstance(readout, Readout)
        return readout

    @classmethod
    def tiny(cls) -> dict[str, Any]:
        return {
            "vision_encoder": {"plugin": "timm_pyramid", "name": "resnet10t", "image_size": 64},
            "region_extractor": {"plugin": "mfe", "embed": 32, "heads": 4, "mlp": 64, "crop_size": 64, "local_hidden": 32},
            "llm": {"plugin": "tiny_causal", "width": 32, "layers": 2, "heads": 4},
        }
