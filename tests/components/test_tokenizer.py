"""The repository's own tokenizer."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from components.prompts import LEVELS, SEVERITIES, TOKENIZER_CORPUS, Dialogue
from components.tokenizer import project_tokenizer

CORPUS = ("the cat sat on the mat.", "the dog sat on the log.")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tokenizer():
    return project_tokenizer(TOKENIZER_CORPUS)


@pytest.mark.parametrize("text", ["", "The quality is good.", "  two  spaces\n\ttab", "naïve 图像 🙂 \x00", "USER: <image> </p>"])
def test_any_text_survives(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert all(0 <= i < len(tokenizer) for i in ids)
    assert tokenizer.decode(ids) == text


def test_special_tokens(tokenizer):
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert tokenizer("good")["input_ids"][0] == tokenizer.bos_token_id
    assert tokenizer("</s>", add_special_tokens=False)["input_ids"] == [tokenizer.eos_token_id]
    assert tokenizer.decode([1, *tokenizer(" good", add_special_tokens=False)["input_ids"], 2], skip_special_tokens=True) == " good"


def test_words_of_the_corpus_are_single_tokens(tokenizer):
    words = {f" {w}" for levels in LEVELS.values() for w in levels} | {f" {w}" for w in SEVERITIES}
    assert {w: tokenizer.tokenize(w) for w in words if len(tokenizer.tokenize(w)) != 1} == {}
    assert len(tokenizer) <= 768


def test_a_small_vocabulary_is_respected():
    assert len(project_tokenizer(CORPUS, 259)) == 259
    assert len(project_tokenizer(CORPUS, 265)) == 265
    with pytest.raises(ValueError, match="vocab_size=258: at least 259"):
        project_tokenizer(CORPUS, 258)


def test_instances_do_not_share_changes():
    changed = project_tokenizer(CORPUS)
    changed.add_tokens(["<extra>"])
    changed.padding_side = "left"
    fresh = project_tokenizer(CORPUS)
    assert len(fresh) == len(changed) - 1
    assert fresh.padding_side == "right"


def test_chat_template(tokenizer):
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "How good?"}]
    said = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert said == "<s>Be kind. USER: How good? ASSISTANT:"
    turns.append({"role": "assistant", "content": "Good."})
    assert tokenizer.apply_chat_template(turns, tokenize=False) == "<s>Be kind. USER: How good? ASSISTANT: Good.</s>"
    with pytest.raises(Exception, match="roles are system, user and assistant, got tool"):
        tokenizer.apply_chat_template([{"role": "tool", "content": ""}], tokenize=False)


@pytest.mark.parametrize("conversation", ["seagull_v1", "chat"])
def test_speaks_every_conversation(tokenizer, conversation):
    dialogue = Dialogue(tokenizer, conversation)
    assert all(len(set(dialogue.levels(task).ids)) == 5 for task in LEVELS)


def test_the_same_in_every_process():
    code = (
        "from components.prompts import TOKENIZER_CORPUS; from components.tokenizer import _trained; import hashlib;"
        "print(hashlib.sha256(_trained(TOKENIZER_CORPUS, 768).encode()).hexdigest())"
    )
    from components.tokenizer import _trained

    ours = hashlib.sha256(_trained(TOKENIZER_CORPUS, 768).encode()).hexdigest()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "true"}
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, cwd=ROOT)
        assert result.stdout.strip() == ours
