"""SEAGULL's composition (reference facts 1.1): vision encoder, projector, region extractor, language model, a readout per task."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from components.batch import TASKS, Batch, Labels, Pyramid, RoiScore, Task
from components.llm_adapters.base import LLMAdapter
from components.preprocess import CropEdges
from components.projector import Projector
from components.prompts import IMAGE, Conversation, Dialogue
from components.prompts import VERSION as PROMPTS_VERSION
from components.reading import CachedReader
from components.readouts.base import READOUTS, Label, Readout
from components.region_extractors.base import RegionExtractor
from components.registry import ConfigError, Part
from components.scorers.base import SCORERS, RegionScores, Scorer
from components.splice import Branch, Packed, expand, language_loss, pack, splice, supervised_columns
from components.standardize import Standardize
from components.vision_encoders.base import VisionEncoder
from components.weights import check_source, load_weights

_DEFAULT_READOUTS = {"quality": "levels", "importance": "levels", "distortion": "text"}


@SCORERS.register("roi_vlm")
class RoiVLM(Scorer):
    """A vision-language model that is shown an image and asked about its regions.

    Args:
        readouts: task -> readout; a task that is not named is neither taught nor asked. Null: levels for the scores, text for
            the distortion.
        standardize: bring each channel of the pyramid to zero mean and unit variance over the training images (see
            `components.standardize`).
        image_level: pyramid level whose cells become the image's tokens.
        image_pool: side of the square of cells averaged to one image token.
        conversation: "seagull_v1" is the released wording, "chat" the tokenizer's own template around the same message, "brief"
            one word per question.
        max_branches: regions of an image asked at once when scoring; bounds memory, does not change scores.
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
        image_level: int = 2,
        image_pool: int = 1,
        conversation: Conversation = "seagull_v1",
        max_branches: int = 64,
        crop_edges: CropEdges = "inclusive",
        train_vision_encoder: bool | None = None,
        weights: str = "",
    ) -> None:
        super().__init__()
        check_source(weights, library="")
        self.weights = weights
        self.vision_encoder, self.llm = vision_encoder(), llm()
        channels = self.vision_encoder.channels
        if not -len(channels) <= image_level < len(channels):
            raise ConfigError(f"image_level {image_level}: the vision encoder has {len(channels)} levels, 0 to {len(channels) - 1}")
        self.standardize = Standardize(channels) if standardize else None
        self.projector = Projector(channels[image_level], self.llm.width, kind=projector, level=image_level, pool=image_pool)
        self.region_extractor = region_extractor(channels, self.vision_encoder.sizes, self.llm.width)
        self.preprocess = dataclasses.replace(self.vision_encoder.preprocess, crop_edges=crop_edges)
        self.crop_size = self.region_extractor.crop_size
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
        self.readouts = nn.ModuleDict({task: part(self.dialogue) for task, part in parts.items()})
        self.tasks = tuple(task for task in TASKS if task in parts)
        for task in self.tasks:
            self._readout(task).check(task)
        self.max_branches = max_branches

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Mean negative log-likelihood of an answer, over all known answers about all regions: one packed row per image."""
        assert batch.labels is not None
        pyramid = self._pyramid(batch)
        image_tokens, region_tokens = self.projector(pyramid), self._region_tokens(pyramid, batch)
        packed = self.pack(batch, image_tokens.shape[1])
        columns = supervised_columns(packed)
        logits = self.read(packed, image_tokens, region_tokens, columns)
        text, levels = language_loss(logits, columns, packed)
        count = max(1, packed.answers)
        text, levels = text / count, levels / count
        return {"loss": text + levels, "text": text, "levels": levels}

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
                raise ValueError(f"features of level {level} exceed half precision (65504): set trainer.cache_features to false")
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
        """Questions and answers of a labelled batch as packed rows."""
        assert batch.labels is not None
        labels = batch.labels.to("cpu")  # once: reading single numbers from a GPU would wait for it each time
        images = [
            [branch for r in range(len(known)) for branch in self._branches(labels, b, r)] for b, known in enumerate(labels.distortions)
        ]
        return pack(self.dialogue.prefix, images, image_tokens, self.region_extractor.tokens, batch.images.device)

    def packed_lengths(self, batch: Batch) -> dict[str, int]:
        """Tokens of a packed row: the prefix, each question's branch with the longest answer taught, and the longest row."""
        image_tokens = math.prod(self.vision_encoder.sizes[self.projector.level]) // self.projector.pool**2
        packed = self.pack(batch, image_tokens)
        prefix = int((packed.branch[0] == 0).sum())
        branches = torch.bincount(packed.branch[0].clamp_min(0))[1:].tolist()  # those of a region follow each other, a task each
        each = dict(zip(map(str, self.tasks), branches, strict=False))
        return {"prefix": prefix, **each, "row": packed.ids.shape[1]}

    def read(self, packed: Packed, image_tokens: Tensor, region_tokens: Tensor, columns: Tensor) -> Tensor:
        """Packed rows -> logits (B, N, V) at `columns` (N,)."""
        embeddings = splice(self.llm.embed(packed.ids), packed, image_tokens, region_tokens)
        return self.llm(embeddings, packed.positions, packed.mask(), keep=columns)

    @torch.no_grad()
    def score_batch(self, batch: Batch, tasks: Sequence[Task]) -> list[list[RegionScores]]:
        self.check_tasks(tasks)
        pyramid = self._pyramid(batch)
        region_tokens = self._region_tokens(pyramid, batch)
        cache, start = self._read_prefix(self.projector(pyramid))
        scores: list[list[RegionScores]] = [[{} for _ in range(n)] for n in batch.regions.valid.sum(1).tolist()]
        for image, region in self._asked_together(batch.regions.valid):
            for task in tasks:
                question = self._question(task, region_tokens[image, region])
                reader = CachedReader(self.llm, cache, len(batch.images), start, question, image, self.dialogue)
                answers: list[RoiScore] = self._readout(task).read(task, reader)
                for b, r, answer in zip(image.tolist(), region.tolist(), answers, strict=True):
                    scores[b][r][task] = answer
        return scores

    def wording(self) -> dict[str, str]:
        """See the contract."""
        return {"conversation": self.dialogue.conversation, "version": PROMPTS_VERSION}

    def parts(self) -> dict[str, nn.Module]:
        return {
            "vision_encoder": self.vision_encoder,
            **({} if self.standardize is None else {"standardize": self.standardize}),
            "projector": self.projector,
            "region_extractor": self.region_extractor,
            "llm": self.llm,
            "readouts": self.readouts,
        }

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

    def _region_tokens(self, pyramid: Pyramid, batch: Batch) -> Tensor:
        return self.region_extractor(self.region_extractor.prepare(pyramid), batch.regions)  # (B, R, K, D)

    def _branches(self, labels: Labels, b: int, r: int) -> list[Branch]:
        branches = []
        for task in self.tasks:
            if task == "distortion":
                label = Label(distortions=labels.distortions[b][r])
            else:
                label = Label(float(getattr(labels, task)[b, r]), float(getattr(labels, f"{task}_std")[b, r]))
            target = self._readout(task).target(task, label)
            if target is not None:
                branches.append(Branch(r, self.dialogue.questions[task], target))
        return branches

    def _read_prefix(self, image_tokens: Tensor) -> tuple[Any, int]:
        """Reads system text and image once: image_tokens (B, N, D) -> a cache of B rows, and their length."""
        ids = expand(self.dialogue.prefix, image_tokens.shape[1], 0)
        slots = torch.tensor([i == IMAGE for i in ids], device=image_tokens.device)
        embedded = self.llm.embed(torch.tensor(ids, device=image_tokens.device).clamp_min(0)).repeat(len(image_tokens), 1, 1)
        embedded[:, slots] = image_tokens.to(embedded.dtype)
        cache = self.llm.new_cache()
        positions = torch.arange(len(ids), device=image_tokens.device).expand(len(image_tokens), -1)
        self.llm(embedded, positions, cache=cache, keep=positions[0, -1:])
        return cache, len(ids)

    def _asked_together(self, valid: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """valid (B, R) -> (image, region) indices, (N,) long each: at most `max_branches` regions of each image at once."""
        for at in range(0, valid.shape[1], self.max_branches):
            image, region = torch.nonzero(valid[:, at : at + self.max_branches], as_tuple=True)
            if len(image):
                yield image, region + at

    def _question(self, task: Task, region_tokens: Tensor) -> Tensor:
        """(N, K, D) region tokens -> (N, K + L, D): the region, then the question's words."""
        words = self.llm.embed(torch.tensor(self.dialogue.questions[task][1:], device=region_tokens.device))
        return torch.cat([region_tokens.to(words.dtype), words.expand(len(region_tokens), -1, -1)], 1)

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
