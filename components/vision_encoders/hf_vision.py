"""Any vision tower of `transformers` as a pyramid: hierarchical nets by their strides, plain ViTs by several depths at one stride.

What the tower's hidden states look like, and which of its parameters no level depends on, is found by a pass on the meta device, not
from a list of families.
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel
from transformers import PretrainedConfig as Architecture
from transformers import PreTrainedModel as Model
from transformers.image_processing_base import ImageProcessingMixin

from components.batch import Pyramid
from components.preprocess import Preprocess
from components.registry import ConfigError, check_keys
from components.vision_encoders.base import VISION_ENCODERS, VisionEncoder
from components.vision_encoders.timm_pyramid import repeated_blocks
from components.weights import load_exactly

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_LEVELS = 4


@VISION_ENCODERS.register("hf_vision")
class HFVision(VisionEncoder):
    """The hidden states of a vision tower: CLIP, SigLIP, DINOv2, Swin, ConvNeXt, ResNet, whatever `AutoModel` makes of images.

    The last state of each stride of a hierarchical net, at most four, fine to coarse; four evenly spaced depths of a plain ViT, without
    class and register tokens. What lies behind the last level (pooling, a final norm) is dropped.

    With `source` its config.json is read at construction, unless `config` says the same, and its weights by `load_pretrained`.
    """

    sources: ClassVar[tuple[str, ...]] = ("source",)

    def __init__(
        self,
        *,
        source: str = "",
        revision: str = "main",
        config: dict[str, Any] | None = None,
        image_size: int | None = None,
        mean: list[float] | None = None,
        std: list[float] | None = None,
    ) -> None:
        """
        Args:
            source: a hub name or a folder with safetensors weights; of a model with a vision tower and a text tower the former is used.
            revision: branch, tag or commit of a hub name.
            config: an architecture, {model_type: dinov2, hidden_size: ...}; alone it gets random weights.
            image_size: pixels, a multiple of the largest stride; None for the architecture's own. A ViT's positions are interpolated.
            mean, std: of the normalisation, per colour; None for the source's own, ImageNet's without one.

        Raises:
            ConfigError: neither source nor config, an unknown architecture, or one that gives no maps at this size.
        """
        super().__init__()
        self.source, self.revision, self.has_weights = source, revision, bool(source)
        architecture = _architecture(source, revision, config)
        size = image_size or _own_size(architecture)
        self.interpolated = size != _own_size(architecture)
        with torch.device("meta"):
            probe = _built(architecture)
            states = _states(probe, torch.zeros(1, 3, size, size), self.interpolated)
        maps = [tuple(_as_map(state, size, architecture).shape[1:]) for state in states]
        self.levels = _chosen(maps, size, architecture)
        unused = _unused(probe, [states[i] for i in self.levels])
        self.net = _pruned(_built(architecture), unused)
        self.channels = tuple(maps[i][0] for i in self.levels)
        self.strides = tuple(size // maps[i][1] for i in self.levels)
        self._architecture = architecture
        given = _normalisation(source, revision) if source and (mean is None or std is None) else _IMAGENET
        self.preprocess = Preprocess(size, mean=_rgb("mean", mean or given[0]), std=_rgb("std", std or given[1]))
        self.blocks = repeated_blocks(self.net, "transformers.models.")

    def forward(self, images: Tensor) -> Pyramid:
        """See the contract."""
        states = _states(self.net, images, self.interpolated)
        return Pyramid(tuple(_as_map(states[i], images.shape[-1], self._architecture).contiguous() for i in self.levels))

    def base_model(self) -> dict[str, str] | None:
        """See the contract."""
        return {"id": self.source, "revision": self.revision} if self.source else None

    def load_pretrained(self) -> None:
        """Reads the weights of `source`, all of those that some level depends on."""
        if not self.source:
            return
        cls: Any = type(self.net)
        read, found = cls.from_pretrained(
            self.source, revision=self.revision, config=self._architecture, use_safetensors=True, output_loading_info=True
        )
        own = self.net.state_dict()
        there = {k: v for k, v in read.state_dict().items() if k in own and k not in found["missing_keys"]}
        load_exactly(self.net, there, self.source)

    def weights_module(self) -> nn.Module:
        """See the contract."""
        return self.net

    @classmethod
    def tiny(cls) -> dict[str, Any]:
        """See the contract."""
        sizes = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": 64, "patch_size": 16}
        return {"config": {"model_type": "dinov2", **sizes}}


def _architecture(source: str, revision: str, config: dict[str, Any] | None) -> Architecture:
    if config:
        options = {k: v for k, v in config.items() if k != "model_type"}
        try:
            plain = AutoConfig.for_model(config.get("model_type", ""))
        except (KeyError, ValueError) as error:
            raise ConfigError(f"config: transformers knows no model_type {config.get('model_type')!r}") from error
        check_keys(options, [*plain.to_dict(), *plain.attribute_map], "config")
        return AutoConfig.for_model(config["model_type"], **copy.deepcopy(options))
    if not source:
        raise ConfigError("give source (a hub name or a folder), config (an architecture), or both; got neither")
    try:
        found = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
    except OSError as error:
        raise FileNotFoundError(f"{source}: neither a folder with a model nor one that the hub gives ({error})".splitlines()[0]) from error
    return cast(Architecture, getattr(found, "vision_config", found))


def _built(architecture: Architecture) -> Model:
    try:
        return cast(Model, AutoModel.from_config(architecture))
    except ValueError as error:
        raise ConfigError(f"'{architecture.model_type}' is no model that transformers' AutoModel makes: {error}") from error


def _own_size(architecture: Architecture) -> int:
    """Pixels of a side; 224 where a net has no size of its own."""
    size = getattr(architecture, "image_size", 224)
    return int(size if isinstance(size, int) else size[0])


def _states(net: Model, images: Tensor, interpolated: bool) -> tuple[Tensor, ...]:
    """The hidden states, (B, C, H, W) or (B, N, C)."""
    options = {"interpolate_pos_encoding": True} if interpolated and hasattr(_embeddings(net), "interpolate_pos_encoding") else {}
    try:
        out = net(pixel_values=images, output_hidden_states=True, **options)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"'{net.config.model_type}' cannot see {images.shape[-1]} x {images.shape[-1]} pixels: {error}") from error
    states = getattr(out, "reshaped_hidden_states", None) or getattr(out, "hidden_states", None)
    if not states:
        raise ConfigError(f"'{net.config.model_type}' gives no hidden states of images")
    return tuple(states)


def _embeddings(net: Model) -> nn.Module | None:
    return next((m for n, m in net.named_modules() if n.rpartition(".")[2] == "embeddings"), None)


def _as_map(state: Tensor, size: int, architecture: Architecture) -> Tensor:
    """(B, C, H, W) of a state; of tokens the last, behind those that stand for no patch."""
    if state.ndim == 4:
        return state
    patch = getattr(architecture, "patch_size", 0)
    side = size // patch if isinstance(patch, int) and patch else 0
    if not side or size % patch or state.shape[1] < side**2:
        raise ConfigError(f"'{architecture.model_type}': {state.shape[1]} tokens of {size} pixels in patches of {patch} are no square map")
    return state[:, state.shape[1] - side**2 :].transpose(1, 2).unflatten(2, (side, side))


def _chosen(maps: list[tuple[int, ...]], size: int, architecture: Architecture) -> tuple[int, ...]:
    """Which states are levels, of (C, H, W) each."""
    if any(h != w or size % h for _, h, w in maps):
        raise ConfigError(
            f"image_size: '{architecture.model_type}' divides {size} pixels into {maps[-1][1:]}: take a multiple of its stride"
        )
    last = {h: i for i, (_, h, _) in enumerate(maps)}
    if len(last) > 1:
        return tuple(sorted(last.values()))[-_LEVELS:]
    depth = len(maps) - 1  # the first state is the embedding
    return tuple(sorted({(i + 1) * depth // _LEVELS for i in range(_LEVELS)} - {0}))


def _unused(probe: Model, levels: list[Tensor]) -> set[str]:
    """Names of the parameters that no level depends on."""
    torch.stack([level.sum() for level in levels]).sum().backward()
    return {name for name, p in probe.named_parameters() if p.grad is None}


def _pruned(net: Model, unused: set[str]) -> Model:
    """Without these parameters: a module that has no others lets its input pass."""
    for name, module in list(net.named_modules()):
        own = {f"{name}.{n}" for n, _ in module.named_parameters()}
        if name and own and own <= unused:
            parent, _, last = name.rpartition(".")
            setattr(net.get_submodule(parent), last, nn.Identity())
            unused = unused - own
    for name in unused:
        parent, _, last = name.rpartition(".")
        net.get_submodule(parent).register_parameter(last, None)
    return net


def _normalisation(source: str, revision: str) -> tuple[list[float], list[float]]:
    found, _ = ImageProcessingMixin.get_image_processor_dict(source, revision=revision)
    return found["image_mean"], found["image_std"]


def _rgb(what: str, values: Any) -> tuple[float, float, float]:
    if len(values) != 3:
        raise ConfigError(f"{what}: got {list(values)}, expected three numbers: red, green, blue")
    red, green, blue = values
    return float(red), float(green), float(blue)
