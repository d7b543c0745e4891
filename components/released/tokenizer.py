"""A SentencePiece model file as a fast tokenizer of transformers, the same token for token (reference facts 1.5).

LLaMA's released tokenizer is a SentencePiece model alone, and what reads it has changed between versions of transformers in just the
point that matters here: whether a piece of text that follows a slot begins with "▁". So the tokenizer is made here, once, from the
model's pieces, written as tokenizer.json, and compared with SentencePiece itself on all that will be said and on hostile text.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from components.judgments import PROPOSALS, Judgment
from components.prompts import TOKENIZER_CORPUS, released_segments
from components.released.shards import CheckpointError
from components.tasks import TASKS

try:
    from sentencepiece import SentencePieceProcessor
    from sentencepiece.sentencepiece_model_pb2 import ModelProto  # type: ignore[attr-defined]
except ModuleNotFoundError as error:
    if error.name not in ("sentencepiece", "google", "google.protobuf"):
        raise
    raise ImportError("a released tokenizer is read with sentencepiece: pip install 'roi-iqa[released]'") from error

_BPE, _NORMAL, _UNKNOWN, _CONTROL, _BYTE = 2, 1, 2, 3, 6  # SentencePiece's own numbers for kinds of models and pieces
_SPACE = "▁"


def write_tokenizer(model: Path, folder: Path) -> PreTrainedTokenizerFast:
    """Writes tokenizer.json and tokenizer_config.json into `folder`; words of an added_tokens.json beside `model` join as special tokens.

    Raises:
        CheckpointError: no model there, not one, of a kind that cannot be said as byte-fallback BPE, or not equal on some text.
        ImportError: sentencepiece is not installed.
    """
    proto = _proto(model)
    names = {piece.type: piece.piece for piece in proto.pieces if piece.type == _UNKNOWN}
    control = [piece.piece for piece in proto.pieces if piece.type == _CONTROL]
    if names.keys() != {_UNKNOWN} or len(control) < 2:
        raise CheckpointError(f"{model} lacks an unknown, a beginning or an end token, got control tokens {control}")
    fast = Tokenizer(
        models.BPE(
            vocab={piece.piece: i for i, piece in enumerate(proto.pieces)},
            merges=_merges(proto),
            unk_token=names[_UNKNOWN],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    fast.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), normalizers.Replace(" ", _SPACE)])
    fast.decoder = decoders.Sequence([decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    unknown = names[_UNKNOWN]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=fast,
        bos_token=control[0],
        eos_token=control[1],
        unk_token=unknown,
        pad_token=unknown,
        clean_up_tokenization_spaces=False,
    )
    _add_words(tokenizer, model.parent / "added_tokens.json")
    _compare(tokenizer, SentencePieceProcessor(model_proto=proto.SerializeToString()), model)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    return tokenizer


def hostile_texts(seed: int = 0, count: int = 400) -> Iterator[str]:
    """Text on which tokenizers differ: runs of spaces, line ends, digits, accents, scripts and emoji that only bytes can say."""
    yield from (
        " ",
        "  ",
        "\n",
        "\t a",
        " a",
        "a ",
        "a  b",
        "▁",
        "▁▁a",
        "1234567890",
        "naïve café",
        "日本語テキスト",
        "😀👍🏽",
        "\x00\x7f",
        "ﬁ½Å",
        "..",
        "a.b.",
    )
    draw = random.Random(seed)
    alphabet = "abcdefghij ABC ...,:'\n\n  0123456789éß漢😀▁"
    yield from ("".join(draw.choices(alphabet, k=draw.randrange(1, 40))) for _ in range(count))


def _proto(model: Path) -> Any:
    if not model.is_file():
        raise CheckpointError(f"{model} is missing: fetch all files of the checkpoint, the tokenizer too")
    try:
        proto = ModelProto.FromString(model.read_bytes())
        SentencePieceProcessor(model_proto=proto.SerializeToString())
    except Exception as error:  # protobuf's DecodeError, or a RuntimeError of SentencePiece, by the damage
        raise CheckpointError(f"{model} is not a SentencePiece model ({error}): fetch it again") from error
    trained, normal = proto.trainer_spec, proto.normalizer_spec
    wanted: Mapping[str, bool] = {
        "a BPE model": trained.model_type == _BPE,
        "byte fallback": trained.byte_fallback and any(piece.type == _BYTE for piece in proto.pieces),
        "text taken as it is": not normal.precompiled_charsmap and not normal.remove_extra_whitespaces,
        "a space before the first word": normal.add_dummy_prefix and not trained.treat_whitespace_as_suffix,
        "no symbols of its own kind": all(piece.type in (_NORMAL, _UNKNOWN, _CONTROL, _BYTE) for piece in proto.pieces),
    }
    lacking = [what for what, there in wanted.items() if not there]
    if lacking:
        raise CheckpointError(f"{model} is no tokenizer of LLaMA's kind, which has {', '.join(wanted)}; it lacks: {', '.join(lacking)}")
    return proto


def _merges(proto: Any) -> list[tuple[str, str]]:
    """Pairs of pieces in the order in which SentencePiece joins them: by the score of what they become."""
    rank = {piece.piece: i for i, piece in enumerate(proto.pieces) if piece.type == _NORMAL}
    found = []
    for piece in proto.pieces:
        word = piece.piece
        if piece.type == _NORMAL:
            splits = ((word[:at], word[at:]) for at in range(1, len(word)))
            found += [(-piece.score, rank[left], rank[right], left, right) for left, right in splits if left in rank and right in rank]
    return [(left, right) for *_, left, right in sorted(found)]


def _add_words(tokenizer: PreTrainedTokenizerFast, file: Path) -> None:
    if not file.is_file():
        return
    try:
        words: dict[str, int] = json.loads(file.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file} is not JSON ({error}): fetch it again") from error
    for word in sorted(words, key=words.__getitem__):
        tokenizer.add_tokens([AddedToken(word, special=True, normalized=False)], special_tokens=True)
        if (found := tokenizer.convert_tokens_to_ids(word)) != words[word]:
            raise CheckpointError(
                f"{file} gives {word!r} the id {words[word]}, behind the tokenizer's words it gets {found}: fetch both again"
            )


def _compare(tokenizer: PreTrainedTokenizerFast, pieces: SentencePieceProcessor, model: Path) -> None:
    for text in _texts():
        ours, theirs = tokenizer(text, add_special_tokens=False)["input_ids"], pieces.encode(text)
        if ours != theirs:
            raise CheckpointError(f"{model} cannot be said as a fast tokenizer: {text!r} becomes {ours}, SentencePiece says {theirs}")
        if (said := tokenizer.decode(ours)) != (meant := pieces.decode(theirs)):
            raise CheckpointError(f"{model} cannot be said as a fast tokenizer: {theirs} reads {said!r}, SentencePiece says {meant!r}")


def _texts() -> Iterable[str]:
    yield from (text for task in TASKS for text in released_segments(task) if isinstance(text, str))
    yield from TOKENIZER_CORPUS
    yield from (f"{Judgment(task, p, True, '').question} ASSISTANT: Yes. No." for task in TASKS for p in PROPOSALS[task])
    yield from hostile_texts()
