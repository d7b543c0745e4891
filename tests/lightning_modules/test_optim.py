"""Groups and schedule."""

import itertools

import pytest
from torch import nn

from lightning_modules.optim import adamw, parameter_groups, warmup_cosine


def test_groups_by_part_and_decay():
    parts = {"a": nn.Linear(2, 2), "b": nn.Linear(2, 2, bias=False), "c": nn.Linear(2, 2).requires_grad_(False)}
    groups = parameter_groups(parts, 1e-2, {"b": 0.1}, 0.05)
    assert [(g["name"], g["lr"], g["weight_decay"], len(g["params"])) for g in groups] == [
        ("a", 1e-2, 0.05, 1),
        ("a (no decay)", 1e-2, 0.0, 1),
        ("b", pytest.approx(1e-3), 0.05, 1),
    ]


def test_unknown_part():
    with pytest.raises(ValueError, match="lr_scale names 'z', but the parts are a"):
        parameter_groups({"a": nn.Linear(1, 1)}, 1, {"z": 1}, 0)


def test_schedule_closed_form():
    factors = [warmup_cosine(s, 10, 110, 0.1) for s in range(110)]
    assert factors[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert factors[10] == pytest.approx(1)
    assert factors[-1] == pytest.approx(0.1)
    assert all(a >= b for a, b in itertools.pairwise(factors[10:]))
    assert warmup_cosine(500, 10, 110, 0.1) == pytest.approx(0.1)
    assert warmup_cosine(0, 0, 1, 0.1) == pytest.approx(1)


def test_the_schedule_multiplies_each_groups_rate():
    groups = parameter_groups({"a": nn.Linear(1, 1, bias=False), "b": nn.Linear(1, 1, bias=False)}, 1.0, {"b": 0.5}, 0)
    optimizer, schedule = adamw(groups, (0.9, 0.99), 4, 10, 0.0)
    assert [g["lr"] for g in optimizer.param_groups] == [0.25, 0.125]
    optimizer.step()
    schedule.step()
    assert [g["lr"] for g in optimizer.param_groups] == [0.5, 0.25]
