"""Reading over a cached prefix."""

import torch

from components.llm_adapters.base import LLM_ADAPTERS
from components.prompts import Dialogue
from components.reading import CachedReader

START = 5


def setup(rows=3, length=4):
    torch.manual_seed(0)
    llm = LLM_ADAPTERS.build({"plugin": "tiny_causal", **LLM_ADAPTERS.get("tiny_causal").tiny()}).eval()
    prefix, question = torch.randn(1, START, llm.width), torch.randn(rows, length, llm.width)
    cache = llm.new_cache()
    llm(prefix, torch.arange(START)[None], cache=cache)
    image = torch.zeros(rows, dtype=torch.long)
    return llm, prefix, question, CachedReader(llm, cache, int(image.max()) + 1, START, question, image, Dialogue(llm.tokenizer))


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
            token = int(llm(tokens, torch.arange(tokens.shape[1])[None])[0, -1, : len(llm.tokenizer)].argmax())
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


@torch.no_grad()
def test_several_images_with_differing_numbers_of_regions():
    """Each region over its own image's prefix, in whatever order, as if it stood alone."""
    torch.manual_seed(0)
    llm = LLM_ADAPTERS.build({"plugin": "tiny_causal", **LLM_ADAPTERS.get("tiny_causal").tiny()}).eval()
    prefixes, question = torch.randn(3, START, llm.width), torch.randn(5, 4, llm.width)
    image = torch.tensor([2, 0, 2, 1, 2])
    cache = llm.new_cache()
    llm(prefixes, torch.arange(START).expand(3, -1), cache=cache)
    together = CachedReader(llm, cache, int(image.max()) + 1, START, question, image, Dialogue(llm.tokenizer))
    alone = []
    for n, row in enumerate(image.tolist()):
        own = llm.new_cache()
        llm(prefixes[row : row + 1], torch.arange(START)[None], cache=own)
        alone.append(CachedReader(llm, own, 1, START, question[n : n + 1], torch.tensor([0]), Dialogue(llm.tokenizer)))
    torch.testing.assert_close(together.after([7, 9]), torch.cat([r.after([7, 9]) for r in alone]), atol=1e-5, rtol=1e-5)
    assert together.generate(7) == [r.generate(7)[0] for r in alone]
    assert together.generate(7) == together.generate(7)  # the prefixes are as they were


@torch.no_grad()
def test_the_prefix_is_not_copied_for_each_region():
    """What is held beside the prefix grows with the question, not with the prefix."""
    llm, _, question, reader = setup(rows=50)
    held = []
    fork = llm.fork_cache

    def watched(cache):
        held.append(fork(cache))
        return held[-1]

    llm.fork_cache = watched
    reader.after([7])
    keys = held[0].layers[0].keys if hasattr(held[0], "layers") else None
    assert keys.shape[0] == 1
    assert keys.shape[-2] == START + 50 * (question.shape[1] + 1)


@torch.no_grad()
def test_what_is_no_word_is_never_said(monkeypatch):
    """Slots of a released vocabulary and rows beyond the words: the next best word is said instead."""
    _, _, _, reader = setup()
    tokenizer = reader.dialogue.tokenizer
    words = len(tokenizer)
    tokenizer.add_tokens(["<global>"], special_tokens=True)
    best = torch.zeros(words + 4)
    best[words:] = torch.tensor([9.0, 8.0, 8.0, 8.0])  # the slot, and rows without a word
    best[7], best[tokenizer.bos_token_id] = 2.0, 1.0
    monkeypatch.setattr(reader, "_next", lambda *_: best.repeat(3, 1))
    assert reader.dialogue.unsayable(words + 4) == (words, words + 1, words + 2, words + 3)
    assert reader.generate(2) == [[7, 7]] * 3
