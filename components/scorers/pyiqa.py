"""No-reference measures of pyiqa (IQA-PyTorch) as scorers of regions: its zoo beside ours, in one benchmark.

pyiqa is not for commercial use, and neither are models made with it: this project neither needs nor installs it. Its weights are fetched
when a measure is first asked for.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from components.batch import Batch
from components.foundation import Foundations, fingerprint
from components.preprocess import Preprocess, cut_box
from components.reading import AnswerError
from components.registry import ConfigError
from components.scorers._crop_quality import Criterion, CropQuality, crops_of, one_resize, valid_places
from components.scorers.base import SCORERS, Graph

_LEAST_SPREAD = 1e-6
_FAULTS = (ArithmeticError, AssertionError, IndexError, RuntimeError, ValueError)  # of a measure, about a crop that it cannot work on


class Calibration(nn.Module):
    """A measure's own numbers, standardised over training regions, through a logistic: what makes them comparable to labels in [0, 1].

    It keeps their order, or turns it round where lower is better, so that no rank correlation owes anything to it but its sign.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.slope, self.offset = nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(()))
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("spread", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        """(N,) -> (N,) in [0, 1]."""
        return (self.slope * (x - self.mean) / self.spread + self.offset).sigmoid()


@SCORERS.register("pyiqa")
class PyIQA(CropQuality):
    """A no-reference measure of pyiqa on a region's crop; NOT FOR COMMERCIAL USE. Needs `pip install pyiqa`.

    A crop is the region's box in the image's own pixels, and crops are measured one by one: resizing would change the sharpness and the
    noise that such measures are about. The measure is frozen; training fits two numbers (`Calibration`).

    Args:
        metric: any of `pyiqa.list_models(metric_mode="NR")`.
        crop_size: "native", or S: each crop is then resized to a square of S x S pixels, as for every other scorer of crops.
        smallest: pixels; native crops with a shorter side go on as in a mirror, to the right and below, until it has as many. 0 shows all
            of them as they are, and one that the measure has no number for is an error.
        criterion: see `CropQuality`.

    Raises:
        ConfigError: `crop_size` below 1, a negative `smallest`, or one beside a `crop_size` in pixels.
        ImportError: pyiqa is missing.
    """

    licence = "PolyForm-Noncommercial-1.0.0 (pyiqa; before 0.1.16 CC BY-NC-SA 4.0 and NTU S-Lab): not for commercial use"

    def __init__(
        self,
        *,
        metric: str = "topiq_nr",
        crop_size: int | Literal["native"] = "native",
        smallest: int = 0,
        criterion: Criterion = "mse",
    ) -> None:
        super().__init__(criterion, (0.0, 1.0))
        native, side = crop_size == "native", 0 if isinstance(crop_size, str) else crop_size
        if not native and side < 1:
            raise ConfigError(f"pyiqa: crop_size is native, or at least 1 pixel, got {crop_size}")
        if smallest < 0 or (smallest and not native):
            raise ConfigError(f"pyiqa: smallest is at least 0, and 0 where crops are resized: got {smallest} with crop_size {crop_size}")
        if importlib.util.find_spec("pyiqa") is None:
            raise ImportError(
                "the scorer 'pyiqa' needs the package pyiqa, which is not for commercial use (PolyForm-Noncommercial-1.0.0): "
                "if that suits you, pip install pyiqa"
            )
        self.metric, self.smallest = metric, smallest
        plain = Preprocess(32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))  # of an image that nobody looks at, and of resized crops
        self.preprocess = dataclasses.replace(one_resize(plain), native=native)
        self.crop_size = side
        self.calibration = Calibration()
        self._measures: dict[str, Any] = {}  # device -> measure; no part of what is trained or saved

    def rate(self, crops: Tensor) -> Tensor:
        rated: Tensor = self.calibration(self.measured(crops))
        return rated

    def rated(self, batch: Batch, places: Tensor) -> Tensor:
        """See `CropQuality`.

        Raises:
            AnswerError: the measure has no number for a native crop.
        """
        if not self.preprocess.native:
            return super().rated(batch, places)
        rated: Tensor = self.calibration(self.measured_boxes(batch, places))
        return rated

    @torch.no_grad()
    def measured(self, crops: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N,) in the measure's own unit."""
        values: Tensor = self._measure(crops.device)(crops.float().clamp(0, 1))
        return values.flatten().float()

    def measured_boxes(self, batch: Batch, places: Tensor) -> Tensor:
        """(K,) places among B * R -> (K,) in the measure's own unit, of native crops, one at a time.

        Raises:
            AnswerError: there is no number for one.
        """
        if not batch.native:
            raise ValueError("pyiqa: this batch comes without its images' own pixels: give it what own_pixels (components.preprocess) says")
        self._measure(self.calibration.slope.device)  # whose own errors are about no crop
        return torch.cat([self._measured_box(batch, *divmod(place, batch.regions.valid.shape[1])) for place in places.tolist()])

    def _measured_box(self, batch: Batch, image: int, region: int) -> Tensor:
        """(1,), of one region."""
        crop = cut_box(batch.native[image], batch.regions.boxes[image, region])
        shown = mirrored(crop, self.smallest).to(self.calibration.slope.device)
        try:
            value = self.measured(shown[None].float() / 255)
        except (torch.AcceleratorError, torch.OutOfMemoryError):  # which say nothing of the crop
            raise
        except _FAULTS as error:
            raise AnswerError(self._unmeasured(batch, image, region, f"fails ({type(error).__name__}: {error})")) from error
        if not value.isfinite().all():
            raise AnswerError(self._unmeasured(batch, image, region, "gives no finite number"))
        return value

    def _unmeasured(self, batch: Batch, image: int, region: int, what: str) -> str:
        height, width = batch.native[image].shape[-2:]
        fractions = batch.regions.boxes[image, region].tolist()
        left, top, w, h = (round(x * side) for x, side in zip(fractions, (width, height) * 2, strict=True))
        name = f"{batch.ids[image][region]} " if batch.ids else ""
        return (
            f"pyiqa: {self.metric} {what} for the region {name}of {w} x {h} pixels at {left}, {top} of an image of {width} x {height}. "
            "Where that is too small for it, train with model.smallest=96, say, which continues smaller crops as in a mirror; where it is "
            "too large, or a measure is to see one size, with model.crop_size=224, say, which resizes all of them"
        )

    @torch.no_grad()
    def calibrate(self, batches: Iterable[Batch]) -> None:
        """Takes mean and spread of the measure over training regions, and its direction.

        Raises:
            ValueError: there are no regions, or the measure has no number for some.
        """
        device = self.calibration.slope.device
        found = [self._measured_all(batch, places, device) for batch in batches if len(places := valid_places(batch))]
        if not found:
            raise ValueError(f"pyiqa: no training regions to calibrate {self.metric} on: the first batches are of images without regions")
        values = torch.cat(found)
        if lost := int((~values.isfinite()).sum()):
            raise ValueError(
                f"pyiqa: {self.metric} gives no finite number for {lost} of {len(values)} training regions, so its spread is unknown: take "
                f"another metric, or a larger crop_size than {self.crop_size}"
            )
        self.calibration.mean.copy_(values.mean())
        self.calibration.spread.copy_(values.std(correction=0).clamp_min(_LEAST_SPREAD))
        self.calibration.slope.fill_(-1.0 if self._measure(device).lower_better else 1.0)

    def _measured_all(self, batch: Batch, places: Tensor, device: torch.device) -> Tensor:
        """(K,), of a batch that may lie elsewhere."""
        if self.preprocess.native:
            return self.measured_boxes(batch, places)
        return self.measured(crops_of(batch.regions.crops, places).to(device))

    def answer_bytes(self, size: tuple[int, int], regions: int) -> int:
        """See the contract; native crops stand there one at a time, each no larger than the image, or than `smallest`."""
        crop = math.prod(max(side, self.smallest) for side in size) if self.preprocess.native else 0
        return super().answer_bytes(size, regions) + 4 * 12 * crop

    def graph(self) -> Graph:
        """See the contract: of crops of one size."""
        if self.preprocess.native:
            raise ConfigError(
                "pyiqa with crop_size native cannot be written as one graph: each region is seen in a size of its own. Train it with "
                "model.crop_size=224, say, or ask it with predict.py"
            )
        return super().graph()

    def load_pretrained(self) -> None:
        """Makes the measure, for which pyiqa may fetch weights."""
        self._measure(self.calibration.slope.device)

    def foundations(self) -> Foundations:
        """See the contract: the measure."""
        measure = self._measure(self.calibration.slope.device)
        return {"metric": {"model": f"pyiqa's {self.metric}", "weights": fingerprint(dict(measure.named_parameters()))}}

    def parts(self) -> dict[str, nn.Module]:
        return {"calibration": self.calibration}

    def beside(self) -> dict[str, nn.Module]:
        """The measure, once."""
        return {"metric": next(iter(self._measures.values()))} if self._measures else {}

    def _measure(self, device: torch.device) -> Any:
        """In eval mode, on a device."""
        if str(device) not in self._measures:
            import pyiqa

            measure = pyiqa.create_metric(self.metric, device=device)
            if measure.metric_mode != "NR":
                raise ConfigError(f"pyiqa: '{self.metric}' compares with a reference, which nobody has here: take one like topiq_nr")
            self._measures[str(device)] = measure.eval()
        return self._measures[str(device)]

    @classmethod
    def tiny(cls) -> dict[str, Any]:
        return {"smallest": 8}


def mirrored(image: Tensor, smallest: int) -> Tensor:
    """(C, H, W) -> with sides of at least `smallest`: to the right and below it goes on as in a mirror that stands on its last pixel, back
    and forth, so that neighbours stay neighbours."""
    rows, columns = (_there_and_back(side, max(side, smallest)) for side in image.shape[-2:])
    return image[:, rows[:, None], columns]


def _there_and_back(side: int, length: int) -> Tensor:
    """0, 1, ..., side - 1, ..., 1, 0, 1, ...: (length,)"""
    period = max(1, 2 * (side - 1))
    place = torch.arange(length) % period
    return torch.minimum(place, period - place)
