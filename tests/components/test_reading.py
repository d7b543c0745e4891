"""Reading over a cached prefix, side by side."""

import pytest
import torch

import components.cache as cache_module
from components.llm_adapters.base import LLM_ADAPTERS
from components.prompts import Dialogue
from components.reading import AnswerError, Prefixes, _heard, converse
from components.readouts.base import Say
from components.tasks import RoiScore

START = 5


@pytest.fixture(scope="module")
def llm():
    torch.manual_seed(0)
    return LLM_ADAPTERS.build({"plugin": "tiny_causal", **LLM_ADAPTERS.get("tiny_causal").tiny()}).eval()


@pytest.fixture(scope="module")
def dialogue(llm):
    return Dialogue(llm.tokenizer)


def read(llm, prefixes):
    cache = llm.new_cache()
    with torch.no_grad():
        llm(prefixes, torch.arange(START).expand(len(prefixes), -1), cache=cache)
    return Prefixes(cache, START, len(prefixes))


def scripted(*turns):
    """Says each of `turns` in turn; answers with what it heard."""
    heard = []
    for ids, among in turns:
        heard.append((yield Say(ids, among)))
    return RoiScore("quality", text=repr(heard), levels={str(n): x for n, h in enumerate(heard) for x in h.logits[:1]})


@torch.no_grad()
def test_what_is_heard_is_what_reading_everything_anew_gives(llm, dialogue):
    """Three talks of differing questions, pace and length: each time the whole sequence is read from nothing, without a cache."""
    torch.manual_seed(1)
    prefix = torch.randn(1, START, llm.width)
    questions = [torch.randn(n, llm.width) for n in (4, 2, 7)]
    among = (3, 8, 11)
    turns = [
        [((7, 9), among), ((5,), among), ((6, 6, 6), among)],
        [((), among), ((4, 4), among)],
        [((2,), among)],
    ]
    heard = {}

    def talk(n):
        heard[n] = []
        for ids, wish in turns[n]:
            heard[n].append((yield Say(ids, wish)))
        return RoiScore("quality", text=str(n))

    answers = converse(llm, read(llm, prefix), questions, [0, 0, 0], [talk(n) for n in range(3)], dialogue)
    assert [a.text for a in answers] == ["0", "1", "2"]
    for n, question in enumerate(questions):
        said = []
        for (ids, _), h in zip(turns[n], heard[n], strict=True):
            said += ids
            words = llm.embed(torch.tensor([said], dtype=torch.long))
            whole = torch.cat([prefix, question[None], words], 1)
            expected = llm(whole, torch.arange(whole.shape[1])[None])[0, -1, list(among)]
            torch.testing.assert_close(torch.tensor(h.logits), expected, atol=1e-5, rtol=1e-5)
            assert h.best == among[int(expected.argmax())]


@torch.no_grad()
def test_several_images_with_differing_numbers_of_regions(llm, dialogue):
    """Each over its own image's prefix, in whatever order, as if it stood alone."""
    torch.manual_seed(0)
    prefixes, questions = torch.randn(3, START, llm.width), [torch.randn(n, llm.width) for n in (4, 4, 3, 4, 6)]
    image = [2, 0, 2, 1, 2]

    def talks():
        return [scripted(((7,) * (1 + n % 2), (3, 4)), ((9,), (5, 6))) for n in range(5)]

    together = converse(llm, read(llm, prefixes), questions, image, talks(), dialogue)
    for n, row in enumerate(image):
        own = read(llm, prefixes[row : row + 1])
        (alone,) = converse(llm, own, [questions[n]], [0], [talks()[n]], dialogue)
        assert together[n].levels == pytest.approx(alone.levels, abs=1e-5)


@torch.no_grad()
def test_the_prefix_is_kept_once_and_left_as_it_is(llm, dialogue, monkeypatch):
    """What is held beside the prefix grows with the questions, not with the prefix."""
    prefixes = read(llm, torch.randn(1, START, llm.width))
    held = []
    fork = llm.fork_cache
    monkeypatch.setattr(llm, "fork_cache", lambda c: held.append(fork(c)) or held[-1])
    questions = [torch.randn(4, llm.width)] * 50
    first = converse(llm, prefixes, questions, [0] * 50, [scripted(((7,), (3,))) for _ in range(50)], dialogue)
    assert held[0].layers[0].keys.shape[0] == 1
    assert held[0].layers[0].keys.shape[-2] == START + 50 * 5
    assert prefixes.cache.get_seq_length() == START
    assert first == converse(llm, prefixes, questions, [0] * 50, [scripted(((7,), (3,))) for _ in range(50)], dialogue)


@torch.no_grad()
def test_a_further_question_copies_nothing_of_the_prefix(llm, dialogue, monkeypatch):
    long = 200
    cache = llm.new_cache()
    llm(torch.randn(1, long, llm.width), torch.arange(long)[None], cache=cache)
    made = []
    monkeypatch.setattr(
        "components.cache._grown", lambda columns, length, real=cache_module._grown: made.append(1) or real(columns, length)
    )
    question = [torch.randn(4, llm.width)]
    answers = [
        converse(llm, Prefixes(cache, long, 1), question * 3, [0] * 3, [scripted(((7,), (3,)), ((9,), (5,))) for _ in range(3)], dialogue)
        for _ in range(3)
    ]
    assert len(made) == 2 * 2  # keys and values of two layers, for the first
    assert answers[0] == answers[1] == answers[2]
    with pytest.raises(ZeroDivisionError):
        converse(llm, Prefixes(cache, long, 1), question, [0], [failing()], dialogue)
    assert converse(
        llm, Prefixes(cache, long, 1), question * 3, [0] * 3, [scripted(((7,), (3,)), ((9,), (5,))) for _ in range(3)], dialogue
    )
    assert len(made) == 2 * 2  # an error gives the room back, too


def failing():
    yield Say((7,), (3,))
    raise ZeroDivisionError


def test_what_is_no_word_is_never_heard():
    """Slots of a released vocabulary and rows beyond the words: the next best word is heard instead."""
    llm = LLM_ADAPTERS.build({"plugin": "tiny_causal", **LLM_ADAPTERS.get("tiny_causal").tiny()})
    dialogue, tokenizer = Dialogue(llm.tokenizer), llm.tokenizer
    words = len(tokenizer)
    tokenizer.add_tokens(["<global>"], special_tokens=True)
    best = torch.zeros(2, words + 4)
    best[:, words:] = torch.tensor([9.0, 8.0, 8.0, 8.0])  # the slot, and rows without a word
    best[:, 7], best[:, tokenizer.bos_token_id] = 2.0, 1.0
    assert dialogue.unsayable(words + 4) == (words, words + 1, words + 2, words + 3)
    heard = _heard(best, [Say(), Say((), (3, words))], dialogue)
    assert heard[0] == (7, (), None)
    assert heard[1] == (words, (0.0, 9.0), None)  # a wish is granted as it is


def test_no_talks():
    assert converse(None, None, [], [], [], None) == []


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_values_that_are_no_numbers_are_not_heard(dialogue, value):
    logits = torch.zeros(2, len(dialogue.tokenizer))
    logits[1, 7] = value
    for say in (Say((), (3, 8)), Say()):
        with pytest.raises(AnswerError, match="logits are not all finite numbers: its weights are damaged"):
            _heard(logits, [say, say], dialogue)
