"""A stand-in for pyiqa's no-reference measures, which are not for commercial use and fetch weights: the same calls, another measure."""

from __future__ import annotations

import importlib.machinery
import sys
import types

import pytest
import torch


class Contrast(torch.nn.Module):
    """Standard deviation of the luma."""

    metric_mode, lower_better = "NR", False

    def __init__(self):
        super().__init__()
        self.weights = torch.nn.Parameter(torch.tensor([0.299, 0.587, 0.114]))

    def forward(self, x):
        assert x.dtype == torch.float32
        assert 0 <= x.min() <= x.max() <= 1
        assert not torch.is_grad_enabled()
        return (x * self.weights[:, None, None]).sum(1).flatten(1).std(1)[:, None]


@pytest.fixture(autouse=True)
def pyiqa_measures(monkeypatch):
    """Made as pyiqa makes its measures; says which were asked for."""
    module = types.ModuleType("pyiqa")
    module.__spec__ = importlib.machinery.ModuleSpec("pyiqa", None)
    module.asked, module.measure = [], Contrast

    def create_metric(name, device):
        module.asked.append((name, str(device)))
        return module.measure().to(device)

    module.create_metric = create_metric
    monkeypatch.setitem(sys.modules, "pyiqa", module)
    return module
