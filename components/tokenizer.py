"""The repository's own tokenizer: byte-level BPE, made in memory from a corpus, the same in every process.

It serves small random language models, so that nothing has to be downloaded to train, test or try the whole system.
"""

from __future__ import annotations

import functools

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

PAD, BOS, EOS = "<pad>", "<s>", "</s>"  # ids 0, 1, 2
SMALLEST = 3 + 256  # the special tokens and every byte

_CHAT = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m['role'] == 'system' %}{{ m['content'] }} "
    "{% elif m['role'] == 'user' %}USER: {{ m['content'] }} "
    "{% elif m['role'] == 'assistant' %}ASSISTANT: {{ m['content'] }}{{ eos_token }}"
    "{% else %}{{ raise_exception('roles are system, user and assistant, got ' ~ m['role']) }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def project_tokenizer(corpus: tuple[str, ...], vocab_size: int = 768) -> PreTrainedTokenizerFast:
    """A new tokenizer that reads any text without loss and spells the words of `corpus` with as few tokens as it can.

    Where `vocab_size` leaves room, each word of the corpus (with the space before it) is one token; then the vocabulary stays
    smaller than `vocab_size`.

    Raises:
        ValueError: `vocab_size` cannot hold the special tokens and the 256 bytes.
    """
    if vocab_size < SMALLEST:
        raise ValueError(f"vocab_size={vocab_size}: at least {SMALLEST} are needed (3 special tokens and 256 bytes)")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained(corpus, vocab_size)), pad_token=PAD, bos_token=BOS, eos_token=EOS
    )
    tokenizer.chat_template = _CHAT
    return tokenizer


@functools.cache
def _trained(corpus: tuple[str, ...], vocab_size: int) -> str:
    """The trained tokenizer as JSON: kept in this form because tokenizers can be changed by whoever holds them."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=1,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus, trainer)
    bpe.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B:1", special_tokens=[(BOS, bpe.token_to_id(BOS))]
    )
    return str(bpe.to_str())
