"""A stand-in for pyiqa, which is not for commercial use and fetches weights: the same calls, another measure."""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import sys
import types

import pytest
import torch


class Measure(torch.nn.Module):
    """Higher is better, 1 for the reference itself, which is the second argument."""

    metric_mode, lower_better = "FR", False

    def forward(self, ours, theirs):
        assert ours.shape == theirs.shape
        assert ours.dtype == torch.float32
        assert 0 <= ours.min() <= ours.max() <= 1
        assert not torch.is_grad_enabled()
        return 1 / (1 + 50 * ((ours - theirs).double() ** 2).mean((1, 2, 3))[:, None])


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    """Made as pyiqa makes its measures; says which were asked for."""
    module = types.ModuleType("pyiqa")
    module.__spec__ = importlib.machinery.ModuleSpec("pyiqa", None)
    module.asked = []
    module.measure = Measure

    def create_metric(name, device):
        module.asked.append((name, str(device)))
        return module.measure()

    module.create_metric = create_metric
    version = importlib.metadata.version
    monkeypatch.setitem(sys.modules, "pyiqa", module)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "9.9.9" if name == "pyiqa" else version(name))
    return module
