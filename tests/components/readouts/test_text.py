"""Text answers: greedy, parsed, and failures said."""

from random import Random

import pytest

from components.prompts import DISTORTION_TYPES, TOKENIZER_CORPUS, Dialogue
from components.readouts.base import READOUTS, Heard, Label
from components.readouts.text import TextReadout, parse, released_clean_up
from components.tasks import TASKS
from components.tokenizer import project_tokenizer


@pytest.fixture(scope="module")
def readout():
    return TextReadout(Dialogue(project_tokenizer(TOKENIZER_CORPUS)))


def test_targets(readout):
    said = {t: readout.dialogue.decode(readout.target(t, label).ids) for t, label in LABELS.items()}
    assert said == {
        "quality": "The quality is excellent.",
        "importance": "This region is minor to the overall quality.",
        "distortion": "With severe noise distortions.",
    }


LABELS = {"quality": Label(1.0), "importance": Label(0.25), "distortion": Label(distortions=(("noise", "severe"),))}


@pytest.mark.parametrize("task", LABELS)
def test_unknown_labels_teach_nothing(readout, task):
    assert readout.target(task, Label()) is None


def test_parse():
    assert parse("quality", "The quality is good.").value == 0.75
    assert parse("distortion", "With minor blur distortions.").distortions == (("blur", "minor"),)
    for task, text in (("quality", "body body body"), ("distortion", "With blur.")):
        failed = parse(task, text)
        assert (failed.value, failed.parsed, failed.text) == (None, False, text)


def spoken(readout, task, ids):
    """The answer of a model that would say `ids` whatever it is asked; a preference that is not allowed becomes the first that is."""
    talk, said, hearings = readout.talk(task), [], 0
    say = next(talk)
    while True:
        said += say.ids
        assert said == list(ids[: len(said)])
        wanted = (*ids, readout.dialogue.eos)[len(said)]
        try:
            hearings += 1
            say = talk.send(Heard(wanted if say.among is None or wanted in say.among else say.among[0], ()))
        except StopIteration as end:
            return end.value, hearings


ANSWERS = [(), (("blur", "minor"),), (("noise", "severe"), ("blur", "trivial")), tuple((kind, "extreme") for kind in DISTORTION_TYPES)]


@pytest.mark.parametrize("distortions", ANSWERS)
@pytest.mark.parametrize("grammar", [True, False])
def test_what_a_model_would_say_is_understood(distortions, grammar):
    readout = TextReadout(Dialogue(project_tokenizer(TOKENIZER_CORPUS)), grammar=grammar)
    ids = readout.target("distortion", Label(distortions=distortions)).ids[:-1]
    answer, hearings = spoken(readout, "distortion", ids)
    assert answer.parsed
    assert answer.distortions == distortions
    # with the grammar only choices are waited for: severity, type and whether that was all, "no" or the first severity at the start
    assert hearings <= (3 * len(distortions) + 1 if grammar else len(ids) + 1)


@pytest.mark.parametrize("task", ["quality", "importance"])
def test_level_sentences_are_spelt_too(readout, task):
    for level in range(5):
        ids = readout.target(task, Label(level / 4)).ids[:-1]
        answer, hearings = spoken(readout, task, ids)
        assert (answer.value, hearings) == (level / 4, 1)


@pytest.mark.parametrize("seed", range(30))
def test_with_the_grammar_every_answer_has_a_meaning(readout, seed):
    """Whatever a model prefers."""
    random = Random(seed)
    for task in TASKS:
        talk = readout.talk(task)
        say, answer = next(talk), None
        while answer is None:
            assert len(say.among) > 1
            try:
                say = talk.send(Heard(random.choice(say.among), ()))
            except StopIteration as end:
                answer = end.value
        assert answer.parsed


def test_an_answer_cut_short_is_a_parse_failure():
    readout = TextReadout(Dialogue(project_tokenizer(TOKENIZER_CORPUS)), max_tokens=2, grammar=False)
    answer, hearings = spoken(readout, "quality", readout.target("quality", Label(0.5)).ids)
    assert not answer.parsed
    assert hearings == 2


def test_a_tokenizer_that_merges_across_answers_is_refused(monkeypatch):
    """One that has the words of a pair in other ids where a second pair follows."""
    readout = TextReadout(Dialogue(project_tokenizer(TOKENIZER_CORPUS)))
    plain = readout.dialogue.answer
    monkeypatch.setattr(readout.dialogue, "answer", lambda task, text: (5, *plain(task, text)) if " and " in text else plain(task, text))
    with pytest.raises(ValueError, match="set grammar to false, or use another tokenizer"):
        spoken(readout, "distortion", plain("distortion", "With minor blur distortions."))
    monkeypatch.setattr(readout.dialogue, "answer", lambda task, text: (5, 6))
    with pytest.raises(ValueError, match="set grammar to false"):
        TextReadout(readout.dialogue).check("distortion")


def test_errors():
    with pytest.raises(ValueError, match="max_tokens must be at least 1, got 0"):
        TextReadout(Dialogue(project_tokenizer(TOKENIZER_CORPUS)), max_tokens=0)


@pytest.mark.parametrize(
    ("answer", "left"),
    [
        ("The quality is good.", "The quality is good."),
        ("The quality is good", "The quality is good."),
        ("  The quality is good.</s> ", "The quality is good."),
        ("Answer: The quality is good. And: more.", "The quality is good. And."),
        ("One. Two. One. Three.", "One. Two. One. Three."),  # " One" is not "One"
        ("One.Two.One.Three.", "One.Two."),
        ("It is 1.1 wide", "It is 1.1 wide."),
        ("1.1", "1."),
        ("", ""),
        ("...", ""),
    ],
)
def test_released_clean_up(answer, left):
    assert released_clean_up(answer) == left


def test_the_clean_up_is_an_option():
    dialogue = Dialogue(project_tokenizer(TOKENIZER_CORPUS))
    dialogue.decode = lambda ids: "ASSISTANT: The quality is good"
    node = {"plugin": "text", "grammar": False}
    plain, _ = spoken(READOUTS.build(node, dialogue), "quality", [1])
    cleaned, _ = spoken(READOUTS.build({**node, "postprocess": "released"}, dialogue), "quality", [1])
    assert (plain.text, cleaned.text) == ("ASSISTANT: The quality is good", "The quality is good.")
    assert cleaned.value == 0.75
