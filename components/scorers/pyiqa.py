"""No-reference measures of pyiqa (IQA-PyTorch) as scorers of regions: its zoo beside ours, in one benchmark.

pyiqa is not for commercial use, and neither are models made with it: this project neither needs nor installs it. Its weights are fetched
when a measure is first asked for.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from components.batch import Batch
from components.foundation import Foundations, fingerprint
from components.preprocess import Preprocess
from components.registry import ConfigError
from components.scorers._crop_quality import Criterion, CropQuality, crops_of, one_resize, valid_places
from components.scorers.base import SCORERS

_LEAST_SPREAD = 1e-6


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

    A crop is resized to a square, as for every scorer of crops. The measure is frozen; training fits two numbers (`Calibration`).

    Args:
        metric: any of `pyiqa.list_models(metric_mode="NR")`.
        crop_size: S, pixels of a crop's side; some networks want at least 224.
        criterion: see `CropQuality`.

    Raises:
        ConfigError: `crop_size` below 1.
        ImportError: pyiqa is missing.
    """

    licence = "PolyForm-Noncommercial-1.0.0 (pyiqa; before 0.1.16 CC BY-NC-SA 4.0 and NTU S-Lab): not for commercial use"

    def __init__(self, *, metric: str = "topiq_nr", crop_size: int = 224, criterion: Criterion = "mse") -> None:
        super().__init__(criterion, (0.0, 1.0))
        if crop_size < 1:
            raise ConfigError(f"pyiqa: crop_size is at least 1 pixel, got {crop_size}")
        if importlib.util.find_spec("pyiqa") is None:
            raise ImportError(
                "the scorer 'pyiqa' needs the package pyiqa, which is not for commercial use (PolyForm-Noncommercial-1.0.0): "
                "if that suits you, pip install pyiqa"
            )
        self.metric, self.crop_size = metric, crop_size
        plain = Preprocess(32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))  # of an image that nobody looks at, and of its crops
        self.preprocess = one_resize(plain)
        self.calibration = Calibration()
        self._measures: dict[str, Any] = {}  # device -> measure; no part of what is trained or saved

    def rate(self, crops: Tensor) -> Tensor:
        rated: Tensor = self.calibration(self.measured(crops))
        return rated

    @torch.no_grad()
    def measured(self, crops: Tensor) -> Tensor:
        """(N, 3, S, S) -> (N,) in the measure's own unit."""
        values: Tensor = self._measure(crops.device)(crops.float().clamp(0, 1))
        return values.flatten().float()

    @torch.no_grad()
    def calibrate(self, batches: Iterable[Batch]) -> None:
        """Takes mean and spread of the measure over training regions, and its direction.

        Raises:
            ValueError: there are no regions, or the measure has no number for some.
        """
        device = self.calibration.slope.device
        crops = [crops_of(batch.regions.crops, valid_places(batch)) for batch in batches]
        found = [self.measured(part.to(device)) for part in crops if len(part)]
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
        return {"crop_size": 16}
