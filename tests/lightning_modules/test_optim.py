"""Groups and schedule."""

import importlib.util
import itertools
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from components.scorers.base import SCORERS
from configs.schema import load_config
from lightning_modules.optim import check_optimizer, make_optimizer, parameter_groups, repage, state_bytes, warmup_cosine
from lightning_modules.scorer import ScorerModule


def test_groups_by_part_and_decay():
    parts = {"a": nn.Linear(2, 2), "b": nn.Linear(2, 2, bias=False), "c": nn.Linear(2, 2).requires_grad_(False)}
    groups = parameter_groups(parts, 1e-2, {"b": 0.1}, 0.05)
    assert [(g["name"], g["lr"], g["weight_decay"], len(g["params"])) for g in groups] == [
        ("a", 1e-2, 0.05, 1),
        ("a (no decay)", 1e-2, 0.0, 1),
        ("b", pytest.approx(1e-3), 0.05, 1),
    ]


def test_with_l2_everything_decays():
    parts = {"a": nn.Linear(2, 2), "b": nn.Linear(2, 2).requires_grad_(False)}
    (group,) = parameter_groups(parts, 1e-2, {}, 0.05, "adam")
    assert (group["name"], group["weight_decay"], len(group["params"])) == ("a", 0.05, 2)


@pytest.mark.parametrize(("kind", "moved"), [("adam", [-1e-2, 1e-2]), ("adamw", [-1e-2 * 0.05 * 0.5, 1e-2 * 0.05 * 3])])
def test_decay_of_what_has_no_gradient(kind, moved):
    """L2 goes through the second moment: the first step is as long as the learning rate, however small the decay; AdamW's is not."""
    weight = nn.Parameter(torch.tensor([[0.5, -3.0]]))
    groups = [{"params": [weight], "lr": 1e-2, "weight_decay": 0.05}]
    optimizer, _ = make_optimizer(groups, (0.9, 0.999), 0, 10, 1.0, kind)
    weight.grad = torch.zeros_like(weight)
    optimizer.step()
    assert (weight.detach() - torch.tensor([[0.5, -3.0]])).flatten().tolist() == pytest.approx(moved, rel=1e-3)


@pytest.mark.parametrize("name", ["mobile_iqa_teacher", "mobile_iqa", "teacher_iqa", "teacher_iqa_koniq"])
def test_the_published_networks_are_trained_as_they_were(name):
    """Reference facts A10 and B5, through the conductor: Adam, its rate and its decay, on everything that is trained."""
    config = load_config(name, ["model.vision_encoder.weights="])
    with torch.device("meta"):
        scorer = SCORERS.build(config.model)
    o = config.optim
    options = {"lr": o.lr, "weight_decay": o.weight_decay, "betas": (o.beta1, o.beta2), "warmup": o.warmup, "optimizer": o.optimizer}
    optimizer = ScorerModule(scorer, steps=100, **options).configure_optimizers()["optimizer"]
    assert type(optimizer) is torch.optim.Adam
    rate, decay = (1e-5, 1e-5) if "mobile" in name else (2e-5, 5e-4)
    assert {(g["initial_lr"], g["weight_decay"], g["betas"]) for g in optimizer.param_groups} == {(rate, decay, (0.9, 0.999))}
    assert sum(len(g["params"]) for g in optimizer.param_groups) == sum(p.requires_grad for p in scorer.parameters())
    if "mobile" in name:
        assert (config.trainer.clip, o.warmup, config.trainer.batch_size * config.data["regions"]) == (0, 0, 8)


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
    optimizer, schedule = make_optimizer(groups, (0.9, 0.99), 4, 10, 0.0)
    assert [g["lr"] for g in optimizer.param_groups] == [0.25, 0.125]
    optimizer.step()
    schedule.step()
    assert [g["lr"] for g in optimizer.param_groups] == [0.5, 0.25]


def trained(kind, steps=20, start=None, seed=0):
    """A linear map (large enough for 8 bits) after some steps towards a target, and its optimizer."""
    torch.manual_seed(seed)
    layer = nn.Linear(96, 64)
    target, x = torch.randn(32, 64), torch.randn(32, 96)
    optimizer, _ = make_optimizer(parameter_groups({"a": layer}, 1e-2, {}, 0.1), (0.9, 0.98), 1, 100, 1.0, kind)
    if start is not None:
        layer.load_state_dict(start[0])
        optimizer.load_state_dict(start[1])
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.mse_loss(layer(x), target).backward()
        optimizer.step()
    return layer, optimizer


def test_moments_of_8_bits_lead_where_those_of_32_do():
    """Measured: after 20 steps the weights differ by 2.9 to 3.1 % of what they have moved (three seeds)."""
    plain, _ = trained("adamw")
    packed, optimizer = trained("adamw_8bit")
    start, _ = trained("adamw", steps=0)
    moved = (plain.weight - start.weight).norm()
    assert 0 < (plain.weight - packed.weight).norm() / moved < 0.05
    assert optimizer.state[packed.weight]["state1"].dtype == torch.uint8
    assert optimizer.state[packed.bias]["state1"].dtype == torch.float32


def test_8_bits_resume_bit_by_bit(tmp_path):
    whole, _ = trained("adamw_8bit", 7)
    half, optimizer = trained("adamw_8bit", 4)
    torch.save([half.state_dict(), optimizer.state_dict()], tmp_path / "half")
    resumed, _ = trained("adamw_8bit", 3, torch.load(tmp_path / "half", weights_only=True))
    assert torch.equal(resumed.weight, whole.weight)


@pytest.mark.parametrize("kind", ["adamw", "adam", "adamw_8bit"])
def test_the_states_bytes_are_those_of_the_real_one(kind):
    layer, optimizer = trained(kind, 1)
    storages = {t.untyped_storage()._cdata: t.nbytes for s in optimizer.state.values() for t in s.values() if torch.is_tensor(t) and t.ndim}
    assert state_bytes(kind, dict(layer.named_parameters())) == (sum(storages.values()),) * 2


def test_what_is_paged_gives_way():
    large, small = nn.Parameter(torch.empty(400, 256)), nn.Parameter(torch.empty(96, 256))
    everything, there = state_bytes("paged_adamw_8bit", {"large": large, "small": small})
    assert everything == state_bytes("adamw_8bit", {"large": large, "small": small})[0]
    assert everything - there == 2 * large.numel()


class Paged:
    """What `repage` needs of bitsandbytes' paged optimizers, which page nothing on a CPU."""

    is_paged = True

    def __init__(self, *sizes):
        self.state = {}
        for number, size in enumerate(sizes, 2):
            moments = {name: torch.full((size,), number * place, dtype=torch.uint8) for place, name in enumerate(("state1", "state2"), 1)}
            self.state[nn.Parameter(torch.zeros(size))] = {"step": 3, "absmax1": torch.ones(size // 256), **moments}

    def get_state_buffer(self, parameter, dtype):
        page = torch.zeros_like(parameter, dtype=dtype)
        page.is_paged = True
        return page


def test_a_restored_state_is_paged_again_with_its_values():
    optimizer = Paged(200_000, 99_840)
    ScorerModule.on_train_start(SimpleNamespace(trainer=SimpleNamespace(optimizers=[optimizer]), _batches=1))
    large, small = optimizer.state.values()
    assert large["state1"].is_paged
    assert large["state2"].is_paged
    assert (large["state1"] == 2).all()
    assert (large["state2"] == 4).all()
    assert large["state1"].dtype == torch.uint8
    assert not any(hasattr(x, "is_paged") for x in (large["absmax1"], small["state1"], small["state2"]))
    pages = [large["state1"], large["state2"]]
    repage(optimizer)  # what is paged stays where it is
    assert all(a is b for a, b in zip(pages, (large["state1"], large["state2"]), strict=True))


def test_other_optimizers_keep_their_state():
    for kind in ("adamw", "adamw_8bit"):
        layer, optimizer = trained(kind, 1)
        before = dict(optimizer.state[layer.weight])
        repage(optimizer)
        assert all(optimizer.state[layer.weight][key] is value for key, value in before.items())


def test_paging_needs_a_gpu():
    check_optimizer("adamw_8bit", torch.device("cpu"))
    check_optimizer("paged_adamw_8bit", torch.device("cuda"))
    with pytest.raises(ValueError, match=r"paged_adamw_8bit moves its state between a GPU and the CPU.*use adamw_8bit"):
        check_optimizer("paged_adamw_8bit", torch.device("cpu"))


def test_8_bits_need_bitsandbytes(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    check_optimizer("adamw", torch.device("cpu"))
    check_optimizer("adam", torch.device("cpu"))
    with pytest.raises(ValueError, match=r"adamw_8bit is that of bitsandbytes, which is not installed: pip install -e '\.\[qlora\]'"):
        check_optimizer("adamw_8bit", torch.device("cpu"))
