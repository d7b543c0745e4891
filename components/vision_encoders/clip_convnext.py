"""The paper's vision tower: the ConvNeXt trunk of a CLIP, at 512 pixels (reference facts 1.2).

The four levels are the raw outputs of the stages, no norm applied. The trunk's last norm and CLIP's projection head,
which the reference carries but never evaluates, are not built.

    ours                              released (`model.vision_tower.vision_tower.visual.`)
    trunk.stem_{0,1}                  trunk.stem.{0,1}
    trunk.stages_{s}                  trunk.stages.{s}
    not built                         trunk.head.norm, head.mlp
"""

from __future__ import annotations

from typing import Any, Literal

import timm
from torch import Tensor, nn

from components.batch import Pyramid
from components.preprocess import Preprocess
from components.vision_encoders.base import VISION_ENCODERS, VisionEncoder
from components.vision_encoders.timm_pyramid import repeated_blocks
from components.weights import check_source, load_exactly, load_weights

Trunk = Literal["convnext_base", "convnext_large", "convnext_xxlarge"]

_LAION = {
    "convnext_base": "convnext_base.clip_laion2b_augreg",
    "convnext_large": "convnext_large_mlp.clip_laion2b_ft_soup_320",  # the paper's; `_mlp` is its head, which is not built
    "convnext_xxlarge": "convnext_xxlarge.clip_laion2b_soup",
}
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@VISION_ENCODERS.register("clip_convnext")
class ClipConvNext(VisionEncoder):
    """ConvNeXt stages at strides 4, 8, 16 and 32, with CLIP's preprocessing."""

    def __init__(
        self,
        *,
        trunk: Trunk = "convnext_large",
        image_size: int = 512,
        depths: list[int] | None = None,
        dims: list[int] | None = None,
        weights: str = "",
    ) -> None:
        """
        Args:
            trunk: timm's name of the architecture.
            image_size: pixels, a multiple of the largest stride.
            depths, dims: blocks and channels of each of the four stages; None for the trunk's own.
            weights: "" for random, "pretrained" for the LAION-2B image tower on timm's hub (for `convnext_large` the one the
                paper starts from), else a .safetensors file with the keys of `trunk`.

        Raises:
            ValueError: `image_size` is no multiple of the largest stride; `depths` or `dims` do not name four stages.
        """
        super().__init__()
        check_source(weights)
        self.args: dict[str, Any] = {"features_only": True, "out_indices": (0, 1, 2, 3)}
        for key, stages in (("depths", depths), ("dims", dims)):
            if stages is not None:
                if len(stages) != 4:
                    raise ValueError(f"{key}: got {stages}, expected one number for each of the four stages")
                self.args[key] = tuple(stages)
        net: Any = timm.create_model(trunk, **self.args)
        self.trunk = net
        self.channels = tuple(net.feature_info.channels())
        self.strides = tuple(net.feature_info.reduction())
        if image_size < self.strides[-1] or image_size % self.strides[-1]:
            raise ValueError(f"image_size: got {image_size}, expected a multiple of {self.strides[-1]}, the largest stride of {trunk}")
        self.name, self.weights, self.has_weights = trunk, weights, bool(weights)
        self.preprocess = Preprocess(image_size, _MEAN, _STD, "bicubic")
        self.blocks = repeated_blocks(net)
        self.any_size = True

    def forward(self, images: Tensor) -> Pyramid:
        """See the contract."""
        return Pyramid(tuple(self.trunk(images)))

    def base_model(self) -> dict[str, str] | None:
        """See the contract."""
        return {"id": f"timm/{_LAION[self.name]}", "revision": "main"} if self.weights == "pretrained" else None

    def load_pretrained(self) -> None:
        """Reads `weights`; timm fetches the LAION ones from the hub, or from its cache."""
        if self.weights == "pretrained":
            source = _LAION[self.name]
            load_exactly(self.trunk, timm.create_model(source, pretrained=True, **self.args).state_dict(), f"timm's {source}")
        elif self.weights:
            load_weights(self.trunk, self.weights)

    def weights_module(self) -> nn.Module:
        """See the contract."""
        return self.trunk

    @classmethod
    def tiny(cls) -> dict[str, Any]:
        """See the contract."""
        return {"image_size": 64, "depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]}
