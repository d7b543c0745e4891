"""Shards one after the other, in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from datamodules.engines.base import ENGINES, Engine, Made, Work, one_thread


@ENGINES.register("inline")
class Inline(Engine):
    """No other process: for debugging, and where a job is small."""

    def run(self, work: Work, shards: Sequence[int]) -> Iterator[tuple[int, Made]]:
        if not shards:
            return
        with one_thread():
            work.get_ready()
        for shard in shards:
            with one_thread():
                made = work.make(shard)
            yield shard, made

    @classmethod
    def tiny(cls) -> dict[str, Any]:
        """See the contract."""
        return {}
