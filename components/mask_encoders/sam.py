"""Segment Anything (Kirillov et al., 2023) through its authors' package: masks from points, boxes, or nothing at all."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from components import rle
from components.mask_encoders.base import MASK_ENCODERS, Code, Image, MaskEncoder, Masks, Prompt, image_size, pixel_at
from components.mask_encoders.given import Given, Mask, box_edges
from components.rle import RegionError

try:
    from segment_anything import SamAutomaticMaskGenerator, SamPredictor, sam_model_registry
    from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
except ModuleNotFoundError as error:
    if error.name != "segment_anything":
        raise
    raise ImportError("the mask encoder 'sam' needs the package segment_anything: pip install 'roi-iqa[sam]'") from error

_ROOM = 2**31  # bytes for what `propose` makes of the points that it asks about at once
_PER_PIXEL = 30  # bytes of a point's three masks, as numbers and as bits, for each pixel of the image
_CHECKPOINTS = "https://github.com/facebookresearch/segment-anything#model-checkpoints"


@MASK_ENCODERS.register("sam")
class SegmentAnything(MaskEncoder):
    """Points and boxes become the object there; polygons, RLE and masks are taken as they are, as by `given`.

    An image is embedded once for all its prompts. Embeddings (4 MiB each) are kept by the image's content, as many as `base.ROOM` holds,
    so that visitors who click in turns do not have each other's images embedded anew. May be used from several threads.

    Args:
        model_type: the released size that `checkpoint` holds; "tiny" is the same architecture at a toy size, for tests.
        checkpoint: path of the authors' .pth file, read by `load_pretrained`. Only "tiny" goes without: its weights are random.
        device: where the model runs, as torch names it.
        multimask: predict three masks (whole, part, subpart) and keep the one of the best predicted quality.
        points_per_side: `propose` asks at a grid of this many points squared.
        points_per_batch: how many of them at once; of a large image fewer, as many as 2 GiB hold.
        pred_iou_thresh: `propose` drops masks of a lower predicted quality, in [0, 1].
        stability_score_thresh: `propose` drops masks that move more when their threshold moves, in [0, 1].
        box_nms_thresh: `propose` drops the worse of two masks whose boxes overlap by more, in [0, 1] (IoU).

    Raises:
        ValueError: a released size without a checkpoint, or `points_per_side` or `points_per_batch` below 1.
    """

    can_propose = True

    def __init__(
        self,
        *,
        model_type: Literal["vit_b", "vit_l", "vit_h", "tiny"] = "vit_b",
        checkpoint: str | None = None,
        device: str = "cpu",
        multimask: bool = False,
        points_per_side: int = 32,
        points_per_batch: int = 64,
        pred_iou_thresh: float = 0.88,
        stability_score_thresh: float = 0.95,
        box_nms_thresh: float = 0.7,
    ) -> None:
        if checkpoint is None and model_type != "tiny":
            raise ValueError(f"sam: model_type '{model_type}' needs `checkpoint`, the path of its .pth file from {_CHECKPOINTS}")
        if points_per_side < 1 or points_per_batch < 1:
            raise ValueError(f"sam: points_per_side and points_per_batch are at least 1, got {points_per_side} and {points_per_batch}")
        self.model_type, self.checkpoint, self.device, self.multimask = model_type, checkpoint, device, multimask
        self._everything = {
            "points_per_side": points_per_side,
            "points_per_batch": points_per_batch,
            "pred_iou_thresh": pred_iou_thresh,
            "stability_score_thresh": stability_score_thresh,
            "box_nms_thresh": box_nms_thresh,
        }
        if checkpoint is None:
            self.model = _architecture(model_type).to(device)
        else:
            with torch.device("meta"):
                self.model = _architecture(model_type)
        self._given = Given()

    def load_pretrained(self) -> None:
        """Reads `checkpoint`, where there is one.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not a checkpoint, or one of another size.
        """
        if self.checkpoint is None:
            return
        if not Path(self.checkpoint).is_file():
            raise FileNotFoundError(f"sam: no checkpoint at {self.checkpoint}: get the one for {self.model_type} from {_CHECKPOINTS}")
        try:
            weights = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            raise ValueError(f"sam: {self.checkpoint} is not a whole checkpoint of tensors: fetch it again from {_CHECKPOINTS}") from error
        try:
            self.model.load_state_dict(weights, strict=True, assign=True)
        except (RuntimeError, TypeError) as error:
            raise ValueError(f"sam: {self.checkpoint} does not fit model_type '{self.model_type}': {error}") from error
        self.model.to(self.device).requires_grad_(False)
        self.seen.clear()

    def forward(self, image: Image, prompts: Sequence[Prompt]) -> Masks:
        """image (H, W, 3) uint8 -> (R, H, W) bool.

        Raises:
            RegionError: as `given` does; a point outside the image; nothing found at a point or in a box; an image too thin.
            RuntimeError: `load_pretrained` has not been called.
        """
        size = image_size(image)
        masks = np.zeros((len(prompts), *size), dtype=np.bool_)
        for mask, prompt in zip(masks, prompts, strict=True):
            if prompt.kind in ("point", "box"):
                mask[:] = self._segment(image, prompt)
            else:
                mask[:] = self._given.forward(image, [prompt])[0]
        return masks

    def propose(self, image: Image) -> Masks:
        """image (H, W, 3) uint8 -> (R, H, W) bool, best predicted quality first; masks may overlap (parts and wholes).

        Raises:
            RegionError: nothing passes the thresholds; an image too thin.
            RuntimeError: `load_pretrained` has not been called.
        """
        return np.stack([rle.decode(code) for code in self.propose_codes(image)])  # (R, H, W)

    def propose_codes(self, image: Image) -> Iterator[Code]:
        """See the contract, and `propose`: no mask is made of a code again."""
        self._check_ready(image)
        options: dict[str, Any] = self._everything | {"points_per_batch": self._points_at_once(image_size(image))}
        found = SamAutomaticMaskGenerator(self.model, **options, output_mode="coco_rle").generate(image)
        codes = [f["segmentation"] for f in found if f["area"]]
        if not codes:
            raise RegionError(
                "sam: no region passes the thresholds: lower pred_iou_thresh or stability_score_thresh, or raise points_per_side"
            )
        yield from codes

    @classmethod
    def tiny(cls) -> dict[str, Any]:
        """A toy size with random weights, every proposal kept that is not a duplicate."""
        return {"model_type": "tiny", "points_per_side": 2, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}

    def _points_at_once(self, size: tuple[int, int]) -> int:
        return max(1, min(int(self._everything["points_per_batch"]), _ROOM // (_PER_PIXEL * size[0] * size[1])))

    def _segment(self, image: Image, prompt: Prompt) -> Mask:
        size = image_size(image)
        question: dict[str, Any] = {}
        if prompt.point is not None:
            pixel_at(prompt.point, size)
            question = {"point_coords": np.array([prompt.point]), "point_labels": np.array([1])}
        elif prompt.box is not None:
            question = {"box": np.array(box_edges(prompt.box, size))}
        self._check_ready(image)
        masks, quality, _ = self._shown(image).predict(**question, multimask_output=self.multimask)  # (1 or 3, H, W), (1 or 3,)
        mask = masks[quality.argmax()]
        if not mask.any():
            raise RegionError(f"sam: nothing found for {prompt.kind} {getattr(prompt, prompt.kind)}: move it, or draw the region yourself")
        return mask

    def look(self, image: Image) -> torch.Tensor:
        """The embedding of an image, (1, C, h, w)."""
        predictor = SamPredictor(self.model)
        predictor.set_image(image)
        return predictor.get_image_embedding()

    def _shown(self, image: Image) -> SamPredictor:
        """A predictor of its own for each question, as it holds the image that it is asked about."""
        predictor = SamPredictor(self.model)
        predictor.features = self.seen.of(image)
        predictor.original_size = image_size(image)
        predictor.input_size = predictor.transform.get_preprocess_shape(*image_size(image), self.model.image_encoder.img_size)
        predictor.is_image_set = True
        return predictor

    def _check_ready(self, image: Image) -> None:
        if any(p.is_meta for p in self.model.parameters()):
            raise RuntimeError(f"sam: the weights have not been read yet: call load_pretrained() first (checkpoint {self.checkpoint})")
        height, width = image_size(image)
        side = self.model.image_encoder.img_size
        if min(height, width) * side < max(height, width):
            raise RegionError(f"sam: an image of {width} x {height} pixels (width x height) has less than one pixel left at size {side}")


def _architecture(model_type: str) -> Sam:
    model = _toy() if model_type == "tiny" else sam_model_registry[model_type]()
    return model.eval().requires_grad_(False)


def _toy(image: int = 64, patch: int = 8, width: int = 32) -> Sam:
    """Every part of the released model (one windowed and one global block), some 1e5 weights instead of 1e8."""
    grid = image // patch
    return Sam(
        ImageEncoderViT(
            img_size=image,
            patch_size=patch,
            embed_dim=width,
            depth=2,
            num_heads=2,
            out_chans=width,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=3,
            global_attn_indexes=(1,),
        ),
        PromptEncoder(width, (grid, grid), (image, image), mask_in_chans=4),
        MaskDecoder(
            transformer_dim=width,
            transformer=TwoWayTransformer(depth=2, embedding_dim=width, num_heads=2, mlp_dim=2 * width),
            iou_head_hidden_dim=width,
        ),
    )
