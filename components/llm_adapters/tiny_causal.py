"""A small Llama with random weights and the repository's own tokenizer: the whole system without a download."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from components.llm_adapters.base import LLM_ADAPTERS, LLMAdapter
from components.llm_adapters.hf_causal import Adaptation, HFCausal


@LLM_ADAPTERS.register("tiny_causal")
class TinyCausal(LLMAdapter):
    """`hf_causal` with a Llama of a few numbers.

    Args:
        width: D, a multiple of `heads`.
        layers: decoder blocks.
        heads: attention heads, of even width.
        mlp: width inside a block's gated MLP.
        max_positions: longest sequence the configuration declares.
        vocabulary: rows of the embedding; the tokenizer uses as many as it needs.
        tie_embeddings: one matrix for input and output embeddings.
        adaptation: which parameters train, as in `hf_causal`.
        lora_rank, lora_alpha, lora_dropout: as in `hf_causal`.
        gradient_checkpointing: recomputes each block in the backward pass.

    Raises:
        ValueError: `width` is not an even multiple of `heads`.
    """

    def __init__(
        self,
        *,
        width: int = 128,
        layers: int = 4,
        heads: int = 4,
        mlp: int = 344,
        max_positions: int = 4096,
        vocabulary: int = 768,
        tie_embeddings: bool = False,
        adaptation: Adaptation = "full",
        lora_rank: int = 8,
        lora_alpha: int = 16,
        lora_dropout: float = 0.0,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if width % (2 * heads):
            raise ValueError(f"width {width} must be a multiple of 2 * heads = {2 * heads}: rotary positions turn pairs of channels")
        self.llama = HFCausal(
            config={
                "model_type": "llama",
                "vocab_size": vocabulary,
                "hidden_size": width,
                "intermediate_size": mlp,
                "num_hidden_layers": layers,
                "num_attention_heads": heads,
                "max_position_embeddings": max_positions,
                "tie_word_embeddings": tie_embeddings,
            },
            tokenizer="project",
            adaptation=adaptation,
            lora_rank=lora_rank,
            lora_alpha=lora_alpha,
            lora_dropout=lora_dropout,
            gradient_checkpointing=gradient_checkpointing,
        )
        self.width, self.tokenizer, self.blocks = self.llama.width, self.llama.tokenizer, self.llama.blocks

    def embed(self, ids: Tensor) -> Tensor:
        return self.llama.embed(ids)

    def forward(
        self, embeddings: Tensor, positions: Tensor, branch: Tensor | None = None, cache: Any = None, keep: Tensor | None = None
    ) -> Tensor:
        return self.llama(embeddings, positions, branch, cache, keep)

    @property
    def token_bytes(self) -> tuple[int, int]:
        """See the contract."""
        return self.llama.token_bytes

    @property
    def output(self) -> nn.Module:
        """See the contract."""
        return self.llama.output

    def new_cache(self) -> Any:
        return self.llama.new_cache()

    def fork_cache(self, cache: Any) -> Any:
        return self.llama.fork_cache(cache)

    def return_cache(self, cache: Any) -> None:
        self.llama.return_cache(cache)

    def foundation(self) -> dict[str, str] | None:
        return self.llama.foundation()

    @classmethod
    def tiny(cls) -> dict[str, Any]:
        return {"width": 32, "layers": 2, "mlp": 48}
