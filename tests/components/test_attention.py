"""Real architectures, small and random, read a branch as if it stood alone after the prefix: loss and every gradient."""

import functools

import pytest
import torch
import torch.nn.functional as F

from components import rows as rows_module
from components.llm_adapters.hf_causal import HFCausal
from tests.components.llm_adapters.test_hf_causal import FAMILIES as PLAIN
from tests.components.llm_adapters.test_hf_causal import LORA, WITHOUT_HEAD_DIM
from tests.components.test_rows import layout

WINDOW, PREFIX = 6, 9
LENGTHS = ((3, 4, 1, 5), (5, 2), (8, 7))  # of the branches of three images; some are longer than the window


def options_of(name, **more):
    plain = PLAIN.get(name, {"config": {"model_type": name, **WITHOUT_HEAD_DIM}})
    return {**plain, "config": {**plain["config"], **more}, "tokenizer": "project"}


SLIDING = {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}  # the first layer sees everything
FAMILIES = {
    "llama": options_of("llama"),
    "qwen2": options_of("qwen2"),
    "qwen2, windows from layer 1": options_of("qwen2", **SLIDING),
    "qwen3": options_of("qwen3"),
    "qwen3, windows from layer 1": options_of("qwen3", **SLIDING),
    "mistral": options_of("mistral", sliding_window=WINDOW),
    "phi3": options_of("phi3", sliding_window=WINDOW),
    "starcoder2": options_of("starcoder2", sliding_window=WINDOW),
    "gemma": options_of("gemma"),
    "gemma2": options_of("gemma2", sliding_window=WINDOW, attn_logit_softcapping=2.0),
    "gemma3": options_of("gemma3_text", sliding_window=WINDOW, layer_types=["sliding_attention", "full_attention"]),
    "llama4, chunks": options_of(
        "llama4_text", attention_chunk_size=WINDOW, intermediate_size_mlp=48, num_local_experts=2, num_experts_per_tok=1
    ),
    "gpt2": options_of("gpt2"),
}
WINDOWED = [name for name in FAMILIES if "sliding_window" in FAMILIES[name]["config"]]


def make(name, **more):
    torch.manual_seed(0)
    return HFCausal(**{**FAMILIES[name], **more})


@functools.cache
def text():
    """Ids, branches, positions and targets of three images' rows."""
    branch, positions = layout(PREFIX, *LENGTHS)
    generator = torch.Generator().manual_seed(1)
    ids, targets = (torch.randint(3, 300, branch.shape, generator=generator) for _ in range(2))
    return ids, branch, positions, targets


def nll(logits, targets):
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="sum")


def packed_loss(adapter):
    ids, branch, positions, targets = text()
    return nll(adapter(adapter.embed(ids), positions, branch)[branch > 0], targets[branch > 0])


def each_branch():
    ids, branch, positions, targets = text()
    for b, lengths in enumerate(LENGTHS):
        for number in range(1, len(lengths) + 1):
            columns = torch.nonzero((branch[b] == 0) | (branch[b] == number))[:, 0]
            yield b, number, ids[b, columns], positions[b, columns], targets[b, columns]


def separate_loss(adapter):
    return sum(nll(adapter(adapter.embed(i[None]), p[None])[0, PREFIX:], t[PREFIX:]) for _, _, i, p, t in each_branch())


def gradients(adapter, loss):
    adapter.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in adapter.named_parameters() if p.grad is not None}


def assert_packed_equals_separate(adapter):
    packed, separate = packed_loss(adapter), separate_loss(adapter)
    torch.testing.assert_close(packed, separate, rtol=1e-5, atol=0)
    found, expected = gradients(adapter, packed), gradients(adapter, separate)
    assert found.keys() == expected.keys() == {n for n, p in adapter.named_parameters() if p.requires_grad}
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= 1e-4 * gradient.norm(), name
        assert gradient.norm() > 0, name


@pytest.fixture(params=[4, 512], ids=["pieces of 4", "pieces of 512"])
def piece(request, monkeypatch):
    monkeypatch.setattr(rows_module, "PIECE", request.param)


@pytest.mark.parametrize("name", FAMILIES)
def test_packed_equals_separate(name, piece):
    assert_packed_equals_separate(make(name).eval())  # GPT-2 drops out


@pytest.mark.parametrize("name", ["llama", "mistral", "gemma3"])
@pytest.mark.parametrize("options", [LORA, {**LORA, "adaptation": "qlora"}, {**LORA, "gradient_checkpointing": True}])
def test_packed_equals_separate_for_adapters(name, options, piece):
    adapter = make(name, **options)
    with torch.no_grad():  # new adapters are the identity, and half of their gradients zero
        for n, p in adapter.named_parameters():
            if "lora_B" in n:
                p.normal_(std=0.1)
    assert_packed_equals_separate(adapter.train())


@pytest.mark.parametrize("name", WINDOWED)
@torch.no_grad()
def test_the_window_is_felt(name):
    """So that what is shown above is not shown of a model that sees everything."""
    ids, branch, positions, _ = text()
    near, far = (make(name), make(name, config={**FAMILIES[name]["config"], "sliding_window": 100}))
    found = [adapter.eval()(adapter.embed(ids), positions, branch) for adapter in (near, far)]
    assert (found[0] - found[1])[branch > 0].abs().amax() > 1e-3
    torch.testing.assert_close(found[0][:, : WINDOW - 1], found[1][:, : WINDOW - 1])


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_cached_equals_separate(name, piece):
    """The prefix in two parts, then all branches side by side, a few tokens of each at a time and at their own pace."""
    adapter, (ids, branch, positions, _) = make(name).eval(), text()
    expected = {(b, n): adapter(adapter.embed(i[None]), p[None])[0] for b, n, i, p, _ in each_branch()}
    cache = adapter.new_cache()
    embeddings = adapter.embed(ids)
    for part in (slice(0, 4), slice(4, PREFIX)):
        adapter(embeddings[:, part], positions[:, part], cache=cache)
    cache = adapter.fork_cache(cache)
    for turn in range(4):
        found = torch.zeros_like(branch, dtype=torch.bool)
        for b, lengths in enumerate(LENGTHS):
            for number in range(1, len(lengths) + 1):
                own = torch.nonzero(branch[b] == number)[:, 0]
                found[b, own[turn * 2 : turn * 2 + 2] if number % 2 else own[turn * 3 : turn * 3 + 3]] = True
        columns = [torch.nonzero(row)[:, 0] for row in found]
        width = max(len(c) for c in columns)
        index = torch.stack([F.pad(c, (0, width - len(c))) for c in columns])
        real = torch.arange(width) < torch.tensor([len(c) for c in columns])[:, None]
        new = torch.where(real, branch.gather(1, index), -1)
        logits = adapter(embeddings.gather(1, index[..., None].expand(-1, -1, adapter.width)), positions.gather(1, index), new, cache)
        assert logits.isfinite().all()
        for b, c in torch.nonzero(real).tolist():
            wanted = expected[b, int(new[b, c])][positions[b, index[b, c]]]
            torch.testing.assert_close(logits[b, c], wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_packed_under_autocast(name):
    adapter, (ids, branch, positions, _) = make(name), text()
    with torch.autocast("cpu", torch.bfloat16):
        halved = adapter(adapter.embed(ids), positions, branch)
    full = adapter(adapter.embed(ids), positions, branch)
    assert 0 < (halved - full)[branch >= 0].abs().mean() < 0.05 * full.std()


FLEX = {"attention": "flex"}


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "gpt2"])
@torch.no_grad()
def test_flex_equals_the_default(name):
    """More columns than a block holds; FlexAttention is not compiled on a CPU."""
    branch, positions = layout(140, (40, 3, 100), (60,))
    ids = torch.randint(3, 300, branch.shape)
    wide = {k: 16 if k == "head_dim" else v for k, v in FAMILIES[name]["config"].items()}
    adapters = [make(name, config={**wide, "hidden_size": 64, "max_position_embeddings": 512}, **more).eval() for more in ({}, FLEX)]
    default, flex = (adapter(adapter.embed(ids), positions, branch) for adapter in adapters)
    torch.testing.assert_close(flex[branch >= 0], default[branch >= 0], atol=1e-5, rtol=1e-4)
    cache, adapter = adapters[1].new_cache(), adapters[1]
    adapter(adapter.embed(ids[:, :140]), positions[:, :140], cache=cache)
    cached = adapter(adapter.embed(ids[:, 140:]), positions[:, 140:], branch[:, 140:], cache)
    torch.testing.assert_close(cached[branch[:, 140:] > 0], default[branch > 0], atol=1e-5, rtol=1e-4)


def test_flex_does_not_train_on_a_cpu():
    adapter = make("llama", **FLEX)
    with pytest.raises(RuntimeError, match="attention 'flex' has no backward pass on a CPU: take 'sdpa' to train there"):
        packed_loss(adapter)


def test_flex_where_a_family_has_none():
    with pytest.raises(ValueError, match=r"'gpt2' with attention 'flex_attention': .*does not support"):
        make("gpt2", **FLEX)


def test_a_mask_that_is_not_a_rule_of_positions():
    with pytest.raises(ValueError, match=r"'gemma3_text' cannot read packed rows: .* a model whose mask is not a rule of positions alone"):
        make("gemma3", config={**FAMILIES["gemma3"]["config"], "use_bidirectional_attention": True}).check_packed()
