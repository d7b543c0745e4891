"""What every LLM adapter promises. A new plugin is found by its file and needs nothing here."""

import pytest
import torch
from transformers import PreTrainedModel

from components.llm_adapters.base import LLM_ADAPTERS

CLOSE = {"atol": 1e-5, "rtol": 1e-4}


def build(name, seed=0):
    torch.manual_seed(seed)
    return LLM_ADAPTERS.build({"plugin": name, **LLM_ADAPTERS.get(name).tiny()})


@pytest.fixture(params=LLM_ADAPTERS.names(), scope="module")
def name(request):
    return request.param


@pytest.fixture(scope="module")
def adapter(name):
    return build(name).eval()


def ids_of(adapter, *shape, seed=1):
    return torch.randint(3, len(adapter.tokenizer), shape, generator=torch.Generator().manual_seed(seed))


def span(batch, start, stop):
    return torch.arange(start, stop).expand(batch, -1)


def read(adapter, ids, **options):
    return adapter(adapter.embed(ids), span(len(ids), 0, ids.shape[1]), **options)


def test_attributes(adapter):
    assert adapter.embed(torch.zeros(2, 3, 4, dtype=torch.long)).shape == (2, 3, 4, adapter.width)
    assert adapter.tokenizer.is_fast
    assert adapter.blocks
    assert any(isinstance(m, adapter.blocks) for m in adapter.modules())


def test_logits(adapter):
    ids = ids_of(adapter, 2, 7)
    logits = read(adapter, ids)
    assert logits.shape[:2] == (2, 7)
    assert logits.shape[2] >= len(adapter.tokenizer)
    assert logits.dtype == torch.float32
    keep = torch.tensor([6, 0, 3])
    torch.testing.assert_close(read(adapter, ids, keep=keep), logits[:, keep], **CLOSE)


def test_gradients_reach_embeddings_and_parameters(name):
    adapter = build(name).train()
    ids = ids_of(adapter, 2, 7)
    embeddings = adapter.embed(ids).detach().requires_grad_()
    read(adapter, ids).square().mean().backward()
    adapter(embeddings, span(2, 0, 7)).square().mean().backward()
    assert embeddings.grad.abs().sum(-1).gt(0).all()
    trainable = {n: p.grad for n, p in adapter.named_parameters() if p.requires_grad}
    assert trainable
    assert [n for n, grad in trainable.items() if grad is None or not grad.isfinite().all()] == []


def test_state_dict_round_trip(name, adapter):
    other = build(name, seed=5).eval()
    ids = ids_of(adapter, 2, 7)
    assert not torch.equal(read(other, ids), read(adapter, ids))
    other.load_state_dict(adapter.state_dict())
    torch.testing.assert_close(read(other, ids), read(adapter, ids), atol=0, rtol=0)


def test_builds_on_the_meta_device(name, adapter):
    with torch.device("meta"):
        skeleton = build(name)
    assert all(p.is_meta for p in skeleton.parameters())
    shapes = [{n: (p.shape, p.requires_grad) for n, p in a.named_parameters()} for a in (skeleton, adapter)]
    assert shapes[0] == shapes[1]


def test_load_pretrained_without_weights_changes_nothing(name, adapter):
    if adapter.has_weights:
        pytest.skip("this adapter's tiny instance reads weights")
    other = build(name).eval()
    other.load_pretrained()
    ids = ids_of(adapter, 1, 5)
    torch.testing.assert_close(read(other, ids), read(adapter, ids), atol=0, rtol=0)


def test_batched_equals_single_and_padding_is_not_seen(adapter):
    ids = ids_of(adapter, 3, 8)
    single = torch.cat([read(adapter, row[None]) for row in ids])
    torch.testing.assert_close(read(adapter, ids), single, **CLOSE)
    branch = torch.zeros(3, 8, dtype=torch.long)
    branch[1, 5:] = -1
    padded = read(adapter, ids, branch=branch)
    assert padded.isfinite().all()
    torch.testing.assert_close(padded[1, :5], single[1, :5], **CLOSE)
    torch.testing.assert_close(padded[::2], single[::2], **CLOSE)


def test_equals_the_model_reading_ids(adapter):
    models = [m for m in adapter.modules() if isinstance(m, PreTrainedModel) and m.get_output_embeddings() is not None]
    if not models:
        pytest.skip("not made of a transformers model")
    ids = ids_of(adapter, 2, 7)
    torch.testing.assert_close(read(adapter, ids), models[0](input_ids=ids).logits, **CLOSE)


def test_causal(adapter):
    ids = ids_of(adapter, 1, 8)
    changed = ids.clone()
    changed[0, 5] = (ids[0, 5] + 1) % len(adapter.tokenizer)
    before, after = read(adapter, ids), read(adapter, changed)
    torch.testing.assert_close(before[:, :5], after[:, :5], **CLOSE)
    assert (before[:, 5:] - after[:, 5:]).abs().amax(-1).gt(1e-4).all()


def test_without_branches_restarting_positions_are_still_plain_causal(adapter):
    embeddings = adapter.embed(ids_of(adapter, 2, 7))
    positions = torch.tensor([0, 1, 2, 3, 2, 3, 4]).expand(2, -1)
    torch.testing.assert_close(adapter(embeddings, positions), adapter(embeddings, positions, torch.zeros_like(positions)), **CLOSE)


@pytest.mark.parametrize("chunks", [(1, 7), (4, 3, 1), (2,) + (1,) * 6])
@torch.no_grad()
def test_cached_equals_full(adapter, chunks):
    ids = ids_of(adapter, 2, 8)
    cache, at, seen = adapter.new_cache(), 0, []
    for chunk in chunks:
        seen.append(adapter(adapter.embed(ids[:, at : at + chunk]), span(2, at, at + chunk), cache=cache))
        at += chunk
    torch.testing.assert_close(torch.cat(seen, 1), read(adapter, ids), **CLOSE)


@torch.no_grad()
def test_a_forked_cache_grows_by_itself(adapter):
    prefix, tails = ids_of(adapter, 2, 5), [ids_of(adapter, 2, 3, seed=seed) for seed in (2, 3)]
    cache = adapter.new_cache()
    read(adapter, prefix, cache=cache)
    for tail in tails:
        after = adapter(adapter.embed(tail), span(2, 5, 8), cache=adapter.fork_cache(cache))
        torch.testing.assert_close(after, read(adapter, torch.cat([prefix, tail], 1))[:, 5:], **CLOSE)


@torch.no_grad()
def test_forking_an_empty_cache(adapter):
    ids, cache = ids_of(adapter, 4, 5), adapter.new_cache()
    for _ in range(2):
        torch.testing.assert_close(read(adapter, ids, cache=adapter.fork_cache(cache)), read(adapter, ids), **CLOSE)


@pytest.mark.parametrize("cached", [False, True])
@torch.no_grad()
def test_packed_branches_equal_separate_sequences(adapter, cached):
    prefix, branches = ids_of(adapter, 2, 4), [ids_of(adapter, 2, n, seed=n) for n in (3, 1, 4)]
    separate = torch.cat([read(adapter, torch.cat([prefix, b], 1))[:, 4:] for b in branches], 1)
    branch = torch.tensor([0] * 4 + [1] * 3 + [2] + [3] * 4).expand(2, -1)
    positions = torch.cat([torch.arange(4), *(torch.arange(4, 4 + b.shape[1]) for b in branches)]).expand(2, -1)
    embeddings = adapter.embed(torch.cat([prefix, *branches], 1))
    cache = adapter.new_cache() if cached else None
    if cached:
        adapter(embeddings[:, :4], positions[:, :4], cache=cache)
        packed = adapter(embeddings[:, 4:], positions[:, 4:], branch[:, 4:], cache)
    else:
        packed = adapter(embeddings, positions, branch)[:, 4:]
    torch.testing.assert_close(packed, separate, **CLOSE)
