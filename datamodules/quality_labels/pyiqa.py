"""Full-reference measures of pyiqa (IQA-PyTorch), TOPIQ-FR among them, which labelled SEAGULL-100w (reference facts 3.1).

pyiqa is not for commercial use, and neither may labels made with it be: this project neither needs nor installs it. Its weights are
fetched when they are first asked for.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import pad

from components.registry import ConfigError
from datamodules.quality_labels.base import QUALITY_LABELS, Image, Masks, QualityLabel, Scores, check_sizes


@QUALITY_LABELS.register("pyiqa")
class PyIQA(QualityLabel):
    """A measure of pyiqa; NOT FOR COMMERCIAL USE. Needs `pip install pyiqa`.

    As in the paper, a region's quality compares the box around it, cut along the mask, with the same cut of the reference, and its impact
    is what the whole image loses where that region alone is replaced. A measure that looks at the whole image at once has no shortcut:
    an impact costs one evaluation of it, `batch` at a time.

    Args:
        metric: a full-reference measure, higher is better, in [0, 1].
        device: where it runs, as torch names it.
        batch: images in one evaluation.
        smallest: pixels; smaller cuts are padded with black, since networks reduce what they see.

    Raises:
        ConfigError: `batch` or `smallest` below 1.
        ImportError: pyiqa is missing.
    """

    version = "1"
    licence = "PolyForm-Noncommercial-1.0.0 (pyiqa; before 0.1.16 CC BY-NC-SA 4.0 and NTU S-Lab): not for commercial use"

    def __init__(self, *, metric: str = "topiq_fr", device: str = "cpu", batch: int = 8, smallest: int = 64) -> None:
        if batch < 1 or smallest < 1:
            raise ConfigError(f"pyiqa: batch and smallest are at least 1, got {batch} and {smallest}")
        if importlib.util.find_spec("pyiqa") is None:
            raise ImportError(
                "the quality label 'pyiqa' needs the package pyiqa, which is not for commercial use (PolyForm-Noncommercial-1.0.0): "
                "if that suits you, pip install pyiqa"
            )
        self.metric, self.device, self.batch, self.smallest = metric, device, batch, smallest
        self.version = f"{PyIQA.version}, {metric}, pyiqa {importlib.metadata.version('pyiqa')}"  # type: ignore[misc]
        self._model: Any = None

    def region(self, distorted: Image, reference: Image, mask: NDArray[np.bool_]) -> float:
        check_sizes(distorted, reference, mask[None])
        return float(self._evaluate([(self._cut(distorted, mask), self._cut(reference, mask))])[0])

    def image(self, distorted: Image, reference: Image) -> float:
        check_sizes(distorted, reference, np.ones((1, *reference.shape[:2]), np.bool_))
        return float(self._evaluate([(distorted, reference)])[0])

    def label(self, distorted: Image, reference: Image, masks: Masks) -> tuple[Scores, Scores]:
        """As the contract says, `batch` composites at a time."""
        check_sizes(distorted, reference, masks)
        quality = self._evaluate([(self._cut(distorted, m), self._cut(reference, m)) for m in masks], together=1)
        impact = np.empty(len(masks))
        for start in range(0, len(masks), self.batch):
            some = masks[start : start + self.batch]
            impact[start : start + len(some)] = 1 - self._evaluate(
                [(np.where(m[..., None], distorted, reference), reference) for m in some]
            )
        return quality, impact

    def _cut(self, image: Image, mask: NDArray[np.bool_]) -> Image:
        """The box around the mask, black outside it."""
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        return np.where(mask[box][..., None], image[box], np.uint8(0))

    def _evaluate(self, pairs: list[tuple[Image, Image]], together: int = 0) -> Scores:
        """Scores in [0, 1] of (distorted, reference) pairs, `together` (default: `batch`) at a time, which then have one size."""
        step, scores = together or self.batch, []
        for start in range(0, len(pairs), step):
            ours, theirs = (torch.stack([self._tensor(p[side]) for p in pairs[start : start + step]]) for side in (0, 1))
            with torch.inference_mode():
                scores.append(self._measure()(ours, theirs).double().flatten().cpu().numpy())
        return np.clip(np.concatenate(scores) if scores else np.zeros(0), 0, 1)

    def _tensor(self, image: Image) -> torch.Tensor:
        """(H, W, 3) uint8 -> (3, H, W) in [0, 1], at least `smallest` on a side."""
        x = torch.from_numpy(np.array(image)).to(self.device).permute(2, 0, 1).float() / 255
        return pad(x, (0, max(0, self.smallest - x.shape[2]), 0, max(0, self.smallest - x.shape[1])))

    def _measure(self) -> Any:
        """Made when it is first needed: this is where weights may be fetched."""
        if self._model is None:
            import pyiqa

            model = pyiqa.create_metric(self.metric, device=self.device)
            if model.metric_mode != "FR" or model.lower_better:
                fault = "no full-reference measure" if model.metric_mode != "FR" else "lower-is-better"
                raise ConfigError(f"pyiqa: '{self.metric}' is {fault}: take one like topiq_fr, whose scores rise with quality in [0, 1]")
            self._model = model
        return self._model

    @classmethod
    def tiny(cls) -> dict[str, Any]:
        """Small cuts stay small."""
        return {"smallest": 1, "batch": 3}
