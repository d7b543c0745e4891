"""Text answers: greedy, parsed, and failures said."""

import pytest

from components.prompts import TOKENIZER_CORPUS, Dialogue
from components.readouts.base import READOUTS, Label
from components.readouts.text import TextReadout, parse, released_clean_up
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


class _Says:
    def __init__(self, answers):
        self.answers = answers

    def generate(self, limit):
        return [a[:limit] for a in self.answers]


def test_read(readout):
    answers = [readout.target("distortion", Label(distortions=d)).ids[:-1] for d in ((), (("blur", "minor"),))]
    clean, blurred = readout.read("distortion", _Says(answers))
    assert clean.parsed
    assert clean.distortions == ()
    assert blurred.distortions == (("blur", "minor"),)


def test_an_answer_cut_short_is_a_parse_failure():
    readout = TextReadout(Dialogue(project_tokenizer(TOKENIZER_CORPUS)), max_tokens=2)
    ids = readout.target("quality", Label(0.5)).ids
    assert not readout.read("quality", _Says([ids[:2]]))[0].parsed


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
    class Said:
        def generate(self, limit):
            return [[1]]

    dialogue = Dialogue(project_tokenizer(TOKENIZER_CORPUS))
    dialogue.decode = lambda ids: "ASSISTANT: The quality is good"
    node = {"plugin": "text"}
    (plain,) = READOUTS.build(node, dialogue).read("quality", Said())
    (cleaned,) = READOUTS.build({**node, "postprocess": "released"}, dialogue).read("quality", Said())
    assert (plain.text, cleaned.text) == ("ASSISTANT: The quality is good", "The quality is good.")
    assert cleaned.value == 0.75
