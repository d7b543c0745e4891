"""The small Llama."""

import pytest
import torch

from components.llm_adapters.tiny_causal import TinyCausal
from components.prompts import LEVELS, Dialogue


def test_defaults_stand_together():
    adapter = TinyCausal()
    assert adapter.width == 128
    assert len(adapter.tokenizer) <= 768 == adapter.llama.model.config.vocab_size
    assert sum(p.numel() for p in adapter.parameters()) < 2_000_000


def test_speaks_the_level_words():
    dialogue = Dialogue(TinyCausal(**TinyCausal.tiny()).tokenizer)
    assert all(len(set(dialogue.levels(task).ids)) == 5 for task in LEVELS)


def test_tied_embeddings_are_one_matrix():
    sizes = [sum(p.numel() for p in TinyCausal(tie_embeddings=tie).parameters()) for tie in (False, True)]
    assert sizes[0] - sizes[1] == 768 * 128


@pytest.mark.parametrize("adaptation", ["frozen", "full", "lora", "qlora"])
def test_adaptations(adaptation):
    adapter = TinyCausal(**TinyCausal.tiny(), adaptation=adaptation, lora_rank=2)
    names = {n for n, p in adapter.named_parameters() if p.requires_grad}
    adapters = {n for n, _ in adapter.named_parameters() if "lora_" in n}
    expected = {"frozen": set(), "full": {n for n, _ in adapter.named_parameters()}, "lora": adapters, "qlora": adapters}
    assert names == expected[adaptation]


def test_learns_a_sentence():
    torch.manual_seed(0)
    adapter = TinyCausal(width=32, layers=2, mlp=48)
    ids = torch.tensor([adapter.tokenizer("The quality of this region is excellent.")["input_ids"]])
    positions = torch.arange(ids.shape[1])[None]
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        logits = adapter(adapter.embed(ids), positions)
        torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:]).backward()
        optimizer.step()
    assert logits[0, :-1].argmax(-1).tolist() == ids[0, 1:].tolist()


def test_width_must_suit_the_heads():
    with pytest.raises(ValueError, match=r"width 36 must be a multiple of 2 \* heads = 8"):
        TinyCausal(width=36)
