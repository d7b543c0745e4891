"""Reading over a cached prefix."""

import torch

from components.llm_adapters.base import LLM_ADAPTERS
from components.reading import CachedReader

START = 5


def setup(rows=3, length=4):
    torch.manual_seed(0)
    llm = LLM_ADAPTERS.build({"plugin": "tiny_causal", **LLM_ADAPTERS.get("tiny_causal").tiny()}).eval()
    prefix, question = torch.randn(1, START, llm.width), torch.randn(rows, length, llm.width)
    cache = llm.new_cache()
    llm(prefix, torch.arange(START)[None], cache=cache)
    return llm, prefix, question, CachedReader(llm, llm.repeat_cache(cache, rows), START, question, llm.tokenizer.eos_token_id)


@torch.no_grad()
def test_after_equals_reading_everything_at_once():
    llm, prefix, question, reader = setup()
    said = [7, 9]
    whole = torch.cat([prefix.expand(3, -1, -1), question, llm.embed(torch.tensor([said])).expand(3, -1, -1)], 1)
    expected = llm(whole, torch.arange(whole.shape[1]).expand(3, -1))[:, -1]
    torch.testing.assert_close(reader.after(said), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_generate_is_greedy():
    llm, prefix, question, reader = setup()
    for row, answer in enumerate(reader.generate(6)):
        tokens = torch.cat([prefix, question[row : row + 1]], 1)
        expected = []
        for _ in range(6):
            token = int(llm(tokens, torch.arange(tokens.shape[1])[None])[0, -1].argmax())
            if token == llm.tokenizer.eos_token_id:
                break
            expected.append(token)
            tokens = torch.cat([tokens, llm.embed(torch.tensor([[token]]))], 1)
        assert answer == expected


@torch.no_grad()
def test_an_answer_ends_at_its_own_end(monkeypatch):
    """Each row stops at its own end-of-sequence id; the others go on."""
    _, _, _, reader = setup()
    script = iter([[7, 7, 0], [9, 0, 9], [0, 9, 9]])
    monkeypatch.setattr(reader, "eos", 0)
    monkeypatch.setattr(reader, "_next", lambda *_: torch.nn.functional.one_hot(torch.tensor(next(script)), 12).float())
    assert reader.generate(10) == [[7, 9], [7], []]


@torch.no_grad()
def test_generation_stops_at_the_limit():
    _, _, _, reader = setup()
    assert all(len(a) <= 2 for a in reader.generate(2))
