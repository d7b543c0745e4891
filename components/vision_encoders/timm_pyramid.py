"""Any timm model as a pyramid: hierarchical nets by their stages, plain ViTs by several depths at one stride."""

from __future__ import annotations

import difflib
from typing import Any, ClassVar

import timm
import torch
from timm.layers import Format
from torch import Tensor, nn

from components.batch import Pyramid
from components.preprocess import Interpolation, Preprocess
from components.registry import ConfigError
from components.vision_encoders.base import VISION_ENCODERS, VisionEncoder
from components.weights import check_source, load_exactly, load_weights

_OURS = ("pretrained", "features_only", "out_indices", "img_size", "in_chans")


@VISION_ENCODERS.register("timm_pyramid")
class TimmPyramid(VisionEncoder):
    """The intermediate features of a timm model; what lies behind the last level used is not built.

    Attributes:
        planes: what the net sees per pixel; a subclass that makes its own planes of the image says how many.
    """

    planes: ClassVar[int] = 3

    def __init__(
        self,
        *,
        name: str,
        image_size: int | None = None,
        levels: list[int] | None = None,
        most_levels: int = 4,
        weights: str = "",
        model_args: dict[str, Any] | None = None,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        interpolation: Interpolation | None = None,
    ) -> None:
        """
        Args:
            name: as in `timm.list_models()`, with or without a tag (`convnext_tiny.fb_in22k`).
            image_size: pixels, a multiple of the largest stride; None for the size the timm weights were trained at.
            levels: timm's `out_indices`, fine to coarse, negative ones from the end; None for the last `most_levels` stages of a
                hierarchical net, all of them where it has fewer, or so many evenly spaced depths of a plain ViT.
            most_levels: see `levels`. Of five, a net whose first stage has a stride of 2 (ResNet, MobileNet) gives strides 2 to 32, one
                that begins with patches (ConvNeXt, Swin) four levels at strides 4 to 32.
            weights: "" for random, "pretrained" for timm's own, else a .safetensors file whose keys are those of `net`,
                the features-only model (`stages_0.blocks.0.gamma`, where the classifier would say `stages.0.blocks.0.gamma`).
            model_args: further arguments of the timm model.
            mean, std: of the normalisation, per colour; None for timm's.
            interpolation: how images are brought to `image_size`; None for timm's.

        Raises:
            ConfigError: unknown name, a size or level the model does not have, a model argument that is set here.
        """
        super().__init__()
        check_source(weights)
        if weights == "pretrained" and self.planes != 3:
            plugin = type(self).__module__.rpartition(".")[2]
            raise ConfigError(
                f"weights: timm's weights are for 3 colours, and {plugin} shows its net {self.planes} planes: give '' (random) or a file"
            )
        trained = _pretrained_cfg(name)
        args = _checked_args(model_args or {})
        with torch.device("meta"):
            probe: Any = timm.create_model(name, features_only=True, out_indices=(0,), **args)
        strides = [level["reduction"] for level in probe.feature_info.info]
        chosen = _chosen_levels(levels, most_levels, strides, name)
        size = _checked_size(trained.input_size[-1] if image_size is None else image_size, max(strides[i] for i in chosen), name)
        if trained.fixed_input_size:
            args["img_size"] = size

        self.name, self.weights, self.has_weights = name, weights, bool(weights)
        self.args = {"features_only": True, "out_indices": chosen, **args}
        if self.planes != 3:
            self.args["in_chans"] = self.planes
        net: Any = timm.create_model(name, **self.args)
        self.net = net.to(memory_format=torch.channels_last)
        self.channels = tuple(net.feature_info.channels())
        self.strides = tuple(net.feature_info.reduction())
        self.preprocess = Preprocess(
            size,
            mean=_rgb("mean", trained.mean if mean is None else mean),
            std=_rgb("std", trained.std if std is None else std),
            interpolation=interpolation or trained.interpolation,
        )
        self.channels_last = getattr(net, "output_fmt", Format.NCHW) == Format.NHWC
        self.blocks = repeated_blocks(net)
        self.any_size = not trained.fixed_input_size

    def forward(self, images: Tensor) -> Pyramid:
        """See the contract."""
        maps = self.net(self.see(images).contiguous(memory_format=torch.channels_last))  # convolutions are 1.6 to 3 times faster so
        if self.channels_last:
            maps = [m.permute(0, 3, 1, 2) for m in maps]  # (B, C_l, H_l, W_l)
        return Pyramid(tuple(maps))

    def see(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) -> what the net is shown (B, planes, H, W)."""
        return images

    def base_model(self) -> dict[str, str] | None:
        """See the contract."""
        if self.weights != "pretrained":
            return None
        trained = _pretrained_cfg(self.name)
        name = f"{trained.architecture}.{trained.tag}" if trained.tag else str(trained.architecture)
        hub = trained.hf_hub_id or "timm/"
        return {"id": f"{hub}{name}" if hub.endswith("/") else hub, "revision": "main"}

    def load_pretrained(self) -> None:
        """Reads `weights`; timm fetches its own from the hub, or from its cache."""
        if self.weights == "pretrained":
            load_exactly(self.net, timm.create_model(self.name, pretrained=True, **self.args).state_dict(), f"timm's {self.name}")
        elif self.weights:
            load_weights(self.net, self.weights)

    def weights_module(self) -> nn.Module:
        """See the contract."""
        return self.net

    @classmethod
    def tiny(cls) -> dict[str, Any]:
        """See the contract."""
        return {"name": "resnet10t", "image_size": 64, "model_args": {"channels": [8, 16, 24, 32]}}


def repeated_blocks(net: nn.Module, package: str = "timm.models.") -> tuple[type[nn.Module], ...]:
    """The classes of `package` that stand in a Sequential, ModuleList or ModuleDict of `net` and hold no other such module.

    These are what timm stacks: a ConvNeXtBlock, a BasicBlock, a SwinTransformerBlock, a ViT's Block.
    """
    containers = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
    stacked = {
        child
        for parent in net.modules()
        if isinstance(parent, containers)
        for child in parent.children()
        if type(child).__module__.startswith(package) and not isinstance(child, containers)
    }
    innermost = [m for m in net.modules() if m in stacked and not any(d in stacked for d in m.modules() if d is not m)]
    return tuple(dict.fromkeys(type(m) for m in innermost))


def _pretrained_cfg(name: str) -> Any:
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        known = timm.list_models()
        near = [k for k in known if k.startswith(architecture)][:3] or difflib.get_close_matches(architecture, known, n=3, cutoff=0.4)
        raise ConfigError(f"name: timm {timm.__version__} has no model '{name}'. Nearest: {', '.join(near) or 'none'}")
    try:
        return timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{architecture}.*")]
        raise ConfigError(f"name: timm {timm.__version__} has no weights '{tag}' of '{architecture}'. Known: {', '.join(tags)}") from error


def _checked_args(args: dict[str, Any]) -> dict[str, Any]:
    taken = [key for key in args if key in _OURS]
    if taken:
        raise ConfigError(f"model_args: {', '.join(taken)} cannot be given here; use image_size, levels and weights. Images have 3 colours")
    return dict(args)


def _chosen_levels(levels: list[int] | None, most: int, strides: list[int], name: str) -> tuple[int, ...]:
    count = len(strides)
    if most < 1:
        raise ConfigError(f"most_levels: got {most}, expected at least 1")
    if levels is None:
        evenly = len(set(strides)) == 1
        return tuple(sorted({(i + 1) * count // most - 1 for i in range(most)} - {-1})) if evenly else tuple(range(count))[-most:]
    if any(not -count <= level < count for level in levels):
        raise ConfigError(
            f"levels: got {levels}, but {name} has {count}: {-count} to {count - 1}, at strides {_listed(strides)}. "
            "Without levels (levels=null), most_levels takes what there is"
        )
    chosen = tuple(level % count for level in levels)
    if not chosen or list(chosen) != sorted(set(chosen)):
        raise ConfigError(f"levels: got {levels}; name at least one, each once, fine to coarse")
    return chosen


def _listed(strides: list[int]) -> str:
    return ", ".join(map(str, strides)) if len(set(strides)) > 1 else f"{strides[0]} each"


def _checked_size(size: int, stride: int, name: str) -> int:
    if size < stride or size % stride:
        below = max(size // stride, 1) * stride
        near = f"{below} and {below + stride}"
        raise ConfigError(f"image_size: {size} is no multiple of {stride}, the largest stride of {name}; nearest are {near}")
    return size


def _rgb(what: str, values: Any) -> tuple[float, float, float]:
    if len(values) != 3:
        raise ConfigError(f"{what}: got {list(values)}, expected three numbers: red, green, blue")
    red, green, blue = values
    return float(red), float(green), float(blue)
