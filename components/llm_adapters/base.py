"""The contract of an LLM adapter."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor, nn

from components.registry import Registry

PADDING = -1  # the branch of columns that nobody reads


class LLMAdapter(nn.Module, ABC):
    """A causal language model that reads embeddings.

    Attributes:
        width: D, of an embedding.
        tokenizer: a `transformers` fast tokenizer.
        blocks: module classes that sharded training wraps.
        has_weights: True where `load_pretrained` reads trained weights.
        sources: names of the options that name weights or other files; who packs a model takes along what they point to.
    """

    width: int
    tokenizer: Any
    blocks: tuple[type[nn.Module], ...] = ()
    has_weights: bool = False
    sources: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def embed(self, ids: Tensor) -> Tensor:
        """ids (...) long, each in [0, V) -> (..., D)."""

    @abstractmethod
    def forward(
        self,
        embeddings: Tensor,
        positions: Tensor,
        branch: Tensor | None = None,
        cache: Any = None,
        keep: Tensor | None = None,
    ) -> Tensor:
        """Logits of the next token.

        Args:
            embeddings: (B, T, D).
            positions: (B, T) long, ascending in the prefix and in each branch, which goes on where the prefix ends.
            branch: (B, T) long: 0 for the prefix, 1, 2, ... for what stands side by side behind it, -1 for padding. A token sees what
                comes before it in the prefix and in its own branch, cached or not, as far as the model looks; None for all prefix.
            cache: from `new_cache`; it is extended in place.
            keep: (N,) long, the columns of T whose logits are wanted; None for all.

        Returns:
            (B, N or T, V) float32.
        """

    @property
    @abstractmethod
    def token_bytes(self) -> tuple[int, int]:
        """About the bytes that a token takes in the cache, and those that it takes beside it while it is read, without gradients."""

    @property
    @abstractmethod
    def output(self) -> nn.Module:
        """The output embedding: the module whose input are the last states, and whose output logits."""

    def with_states(self, *args: Any, **options: Any) -> tuple[Tensor, Tensor]:
        """As `forward`, and the last states (B, N or T, D) float32 in whose place its logits stand."""
        seen: list[Tensor] = []
        hook = self.output.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        try:
            logits = self(*args, **options)
        finally:
            hook.remove()
        return logits, seen[-1].float()

    def check_packed(self) -> None:
        """Raises ValueError, with the reason, where a branch of a packed row would not be read as if it stood alone after the prefix."""

    @abstractmethod
    def new_cache(self) -> Any:
        """An empty key-value cache."""

    @abstractmethod
    def fork_cache(self, cache: Any) -> Any:
        """A cache that holds what `cache` holds and may be extended without changing it; nothing is copied before it is extended."""

    def return_cache(self, cache: Any) -> None:
        """Says that a fork is not read any more; what it took may serve the next one."""

    def base_model(self) -> dict[str, str] | None:
        """{"id": ..., "revision": ...} of the published model that `load_pretrained` reads; None where it reads none or a file."""
        return None

    def foundation(self) -> dict[str, str] | None:
        """What trained adapters stand on, as in `components.foundation`: {"model": ..., "architecture": ..., "weights": fingerprint};
        None where no part of the model is frozen. The weights must have been read."""
        return None

    def load_pretrained(self) -> None:
        """Reads trained weights where the configuration names some; called once, after construction."""

    @classmethod
    @abstractmethod
    def tiny(cls) -> dict[str, Any]:
        """Options of a small, random instance for tests."""


LLM_ADAPTERS: Registry[LLMAdapter] = Registry("llm_adapter", __package__, LLMAdapter)
