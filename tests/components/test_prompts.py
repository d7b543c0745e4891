"""Questions, answers and their ids."""

import pytest

from components.prompts import (
    CLEAN,
    DISTORTION_TYPES,
    IMAGE,
    LEVELS,
    REGION,
    SEVERITIES,
    STEMS,
    TOKENIZER_CORPUS,
    Dialogue,
    nearest_level,
    parse_distortions,
    parse_level,
    say_distortions,
    say_level,
)
from components.tokenizer import project_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return project_tokenizer(TOKENIZER_CORPUS)


@pytest.fixture
def dialogue(tokenizer):
    return Dialogue(tokenizer)


def test_the_released_wording(dialogue):
    """Reference facts 1.8: the conversation, the missing comma and the trailing space included."""
    text = dialogue.tokenizer.decode([i for i in dialogue.prefix if i >= 0], skip_special_tokens=True)
    assert text.startswith("A chat between a curious human and an artificial intelligence assistant.")
    assert "USER: \nThis provides an overview of the image.\n Please answer" in text
    assert text.endswith("blur, colorfulness, compression, contrast exposure and noise.\n Here is the region ")
    asked = dialogue.tokenizer.decode(dialogue.questions["quality"][1:])
    assert asked == ". Analyze the quality of this region. ASSISTANT:"


def test_slots(dialogue):
    assert dialogue.prefix.count(IMAGE) == 1
    assert dialogue.prefix[0] == dialogue.tokenizer.bos_token_id
    assert REGION not in dialogue.prefix
    assert all(q[0] == REGION and REGION not in q[1:] for q in dialogue.questions.values())


@pytest.mark.parametrize("task", STEMS)
def test_level_sentences_parse_back(task):
    for level in range(5):
        assert parse_level(task, say_level(task, level)) == level


@pytest.mark.parametrize(
    "text", ["", "The quality is", "The quality is great.", "The quality is good or bad.", "good", "The quality is goodish."]
)
def test_what_is_no_level_does_not_parse(text):
    assert parse_level("quality", text) is None


def test_unimportant_is_not_important():
    assert parse_level("importance", "This region is unimportant to the overall quality.") == 0


@pytest.mark.parametrize("kind", DISTORTION_TYPES)
@pytest.mark.parametrize("severity", SEVERITIES)
def test_distortion_sentences_parse_back(kind, severity):
    pairs = ((kind, severity),)
    assert parse_distortions(say_distortions(pairs)) == pairs


def test_several_distortions_and_none():
    pairs = (("colorfulness", "minor"), ("contrast", "trivial"))
    assert say_distortions(pairs) == "With minor colorfulness and trivial contrast distortions."
    assert parse_distortions(say_distortions(pairs)) == pairs
    assert say_distortions(()) == "With no visible distortions."
    assert parse_distortions("With no visible distortions.") == ()


@pytest.mark.parametrize(
    "text",
    ["", "blur", "With blur distortions.", "With minor blur", "With minor blur and minor blur distortions.", "With huge blur distortions."],
)
def test_what_is_no_distortion_sentence_does_not_parse(text):
    assert parse_distortions(text) is None


def test_unknown_distortion_is_refused():
    with pytest.raises(ValueError, match=r"\('fog', 'minor'\): types are .*'blur'"):
        say_distortions((("fog", "minor"),))


def test_nearest_level():
    assert [nearest_level(v) for v in (0, 0.12, 0.13, 0.5, 0.87, 0.88, 1, 1.4, -1)] == [0, 0, 1, 2, 3, 4, 4, 4, 0]


def test_clean_is_no_type():
    assert CLEAN not in DISTORTION_TYPES


@pytest.mark.parametrize("conversation", ["seagull_v1", "chat", "brief"])
@pytest.mark.parametrize("task", STEMS)
def test_level_ids_are_found_in_context(tokenizer, conversation, task):
    dialogue = Dialogue(tokenizer, conversation)
    found = dialogue.levels(task)
    assert len(set(found.ids)) == 5
    for level in range(5):
        answer = dialogue.answer(task, say_level(task, level))
        assert answer[: len(found.stem)] == found.stem
        assert answer[len(found.stem)] == found.ids[level]
        assert answer[-1] == tokenizer.eos_token_id
        assert dialogue.decode(answer) == say_level(task, level)


class _Wrapped:
    """A tokenizer with its words tampered with."""

    def __init__(self, inner, change):
        self.inner, self.change = inner, change
        self.bos_token_id, self.eos_token_id, self.chat_template = inner.bos_token_id, inner.eos_token_id, None

    def __call__(self, text, **kwargs):
        return {"input_ids": self.change(text, self.inner(text, **kwargs)["input_ids"])}


def test_level_words_that_share_their_first_id_are_refused(tokenizer):
    good, poor = (tokenizer(f" {w}", add_special_tokens=False)["input_ids"][0] for w in ("good", "poor"))
    dialogue = Dialogue(_Wrapped(tokenizer, lambda _, ids: [good if i == poor else i for i in ids]))
    with pytest.raises(ValueError, match=rf"'poor' and 'good' of quality with the same id {good}.*text readout"):
        dialogue.levels("quality")


def test_a_tokenizer_that_merges_across_the_borders_is_refused(tokenizer):
    def merge_level(text, ids):
        return [*ids[:-4], 7] if "quality is fair" in text else ids

    with pytest.raises(ValueError, match="merges the level word 'fair' with the words before it"):
        Dialogue(_Wrapped(tokenizer, merge_level)).levels("quality")

    def merge_answer(text, ids):
        return ids[::-1] if "The quality is" in text else ids

    with pytest.raises(ValueError, match="merges the answer 'The quality is' with the question before it"):
        Dialogue(_Wrapped(tokenizer, merge_answer)).levels("quality")


def test_chat_needs_a_template(tokenizer):
    with pytest.raises(ValueError, match="needs a tokenizer with a chat template"):
        Dialogue(_Wrapped(tokenizer, lambda _, ids: ids), "chat")


def test_levels_are_the_released_words():
    assert LEVELS["quality"] == ("bad", "poor", "fair", "good", "excellent")
    assert LEVELS["importance"] == ("unimportant", "minor", "normal", "important", "essential")
