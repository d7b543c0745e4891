"""Merged weights in closed form, logits before and after for every kind of adapter and base, and every refusal."""

import pytest
import torch

from components.merging import MergeError, adapters, agreement, merge, weights, without_adapters
from components.scorers.base import check_state
from components.tasks import RoiScore
from tests.components.llm_adapters.test_hf_causal import FAMILIES, LORA, ids_of, loss_of, make, read, trainable

SINGLE, ROUNDED = 2e-6, 5e-2  # measured after 3 and 30 steps: 2e-7 to 6e-7; 5e-3 to 1.6e-2 in bfloat16, 3e-3 to 7e-3 on int8


def trained(steps=3, family="llama", **options):
    adapter = make(**{**FAMILIES[family], **LORA, **options}).train()
    ids = ids_of(4, 16)
    optimizer = torch.optim.AdamW(trainable(adapter).values(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(adapter, ids).backward()
        optimizer.step()
    return adapter.eval()


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("rslora", [False, True])
def test_the_merged_weight_in_closed_form(dora, rslora):
    layer = adapters(trained(dora=dora, rslora=rslora).model)["model.layers.1.mlp.up_proj"]
    base, merged = weights(layer)
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    expected = layer.base_layer.weight + (8 / 2 if rslora else 8 / 4) * b @ a
    if dora:
        expected = expected / expected.norm(dim=1, keepdim=True) * layer.lora_magnitude_vector["default"].weight[:, None]
    torch.testing.assert_close(merged, expected)
    assert torch.equal(base, layer.base_layer.weight)


CASES = {
    "lora": ({}, SINGLE),
    "rslora": ({"rslora": True}, SINGLE),
    "dora": ({"dora": True}, SINGLE),
    "some targets": ({"lora_targets": ("q_proj", "v_proj")}, SINGLE),
    "bfloat16": ({"dtype": "bfloat16"}, ROUNDED),
    "bfloat16 dora": ({"dtype": "bfloat16", "dora": True}, ROUNDED),
    "nf4": ({"adaptation": "qlora"}, SINGLE),
    "nf4 rslora": ({"adaptation": "qlora", "rslora": True}, SINGLE),
    "nf4 dora": ({"adaptation": "qlora", "dora": True}, SINGLE),
    "nf4 bfloat16": ({"adaptation": "qlora", "dtype": "bfloat16"}, ROUNDED),
    "int8": ({"quantization": "int8"}, ROUNDED),
    "transposed maps": ({"family": "gpt2"}, SINGLE),
    "transposed maps, dora": ({"family": "gpt2", "dora": True}, SINGLE),
    "scaled embeddings": ({"family": "gemma"}, SINGLE),
    "biases": ({"family": "qwen2"}, SINGLE),
}


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_logits_are_those_of_the_trained_model(case):
    options, tolerance = CASES[case]
    with torch.enable_grad():
        adapter = trained(**options)
    ids, dtype = ids_of(2, 9, seed=5), getattr(torch, options.get("dtype", "float32"))
    unmerged = read(adapter, ids).flatten(0, 1)
    with without_adapters(adapter.model):
        plain = read(adapter, ids).flatten(0, 1)
    torch.testing.assert_close(read(adapter, ids).flatten(0, 1), unmerged)
    count = merge(adapter.model, dtype)
    found = agreement((unmerged, []), plain, (read(adapter, ids).flatten(0, 1), []))
    assert found.error < tolerance
    assert found.effect > 0.1
    assert adapters(adapter.model) == {}
    assert count == {"some targets": 4, "transposed maps": 8, "transposed maps, dora": 8}.get(case, 14)
    linear = next(m for n, m in adapter.model.named_modules() if n.endswith(("up_proj", "c_fc", "q_proj")))
    assert type(linear).__name__ in ("Linear", "Conv1D")
    assert linear.weight.dtype == dtype
    assert not any("lora_" in name or "quant" in name for name in adapter.model.state_dict())


@pytest.mark.parametrize("case", ["lora", "rslora", "dora", "nf4", "nf4 rslora", "nf4 dora"])
@torch.no_grad()
def test_adapters_are_saved_and_loaded_onto_their_base(case, tmp_path):
    """What a checkpoint holds, onto a base made again; a file that lacks one is refused by its name."""
    options = CASES[case][0]
    with torch.enable_grad():
        adapter = trained(**options)
    torch.save({n: p.detach() for n, p in trainable(adapter).items()}, tmp_path / "adapters")
    state = torch.load(tmp_path / "adapters", weights_only=True)
    again, ids = make(**{**LORA, **options}).eval(), ids_of(2, 9, seed=5)
    assert again.foundation() == adapter.foundation()
    check_state(state, trainable(again))
    again.load_state_dict(state, strict=False)
    assert torch.equal(read(again, ids), read(adapter, ids))
    state.popitem()
    with pytest.raises(ValueError, match=r"tensors 1 missing \(first: model\."):
        check_state(state, trainable(again))


def test_packing_the_sum_again_would_lose_much():
    """Why a quantised base stays unpacked: what peft's own merge leaves of the logits."""
    adapter, ids = trained(adaptation="qlora"), ids_of(2, 9, seed=5)
    with torch.no_grad():
        unmerged = read(adapter, ids).flatten(0, 1)
        for layer in adapters(adapter.model).values():
            with pytest.warns(UserWarning, match="rounding errors"):
                layer.merge()
        repacked = read(adapter, ids).flatten(0, 1)
    assert agreement((unmerged, []), unmerged, (repacked, [])).error > 1e4 * SINGLE


def test_adapters_that_were_not_trained_are_named():
    with pytest.raises(MergeError, match=r"14 of 14 adapters change nothing \(model\.layers\.0\.self_attn\.q_proj, .* and 10 more\)"):
        merge(make(**LORA).model, torch.float32)
    half = trained()
    torch.nn.init.zeros_(adapters(half.model)["model.layers.1.mlp.up_proj"].lora_B["default"].weight)
    with pytest.raises(MergeError, match=r"1 of 14 adapters change nothing \(model\.layers\.1\.mlp\.up_proj\): they were not trained"):
        merge(half.model, torch.float32)


def test_adapters_that_are_rounded_away_are_named():
    faint = trained(dtype="bfloat16")
    for layer in adapters(faint.model).values():
        layer.scaling["default"] *= 1e-9
    with pytest.raises(MergeError, match=r"14 of 14 weights do not change in bfloat16.*write in --dtype float32"):
        merge(faint.model, torch.bfloat16)


def test_an_adapter_that_is_no_number():
    broken = trained()
    torch.nn.init.constant_(adapters(broken.model)["model.layers.0.mlp.up_proj"].lora_A["default"].weight, float("nan"))
    with pytest.raises(MergeError, match=r"mlp\.up_proj: its adapter is not finite"):
        merge(broken.model, torch.float32)


def test_nothing_to_merge():
    with pytest.raises(MergeError, match="there are no adapters to merge"):
        merge(make().model, torch.float32)


def test_agreement_in_closed_form():
    logits = torch.tensor([[0.0, 2.0], [0.0, 2.0]], dtype=torch.float64)  # standard deviation 2 / sqrt(3)
    before = [RoiScore("quality", 0.5, text="good"), RoiScore("distortion", text="blur")]
    after = [RoiScore("quality", 0.25, text="good"), RoiScore("distortion", text="noise")]
    found = agreement((logits, before), logits + 1, (logits + 0.1, after))
    assert (found.error, found.effect) == (pytest.approx(0.1 * 3**0.5 / 2), pytest.approx(3**0.5 / 2))
    assert (found.answers, found.texts) == (0.25, 1)
    assert found.share == pytest.approx(0.9)
