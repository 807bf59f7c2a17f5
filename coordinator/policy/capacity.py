"""What could never fit, however long it waited."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from coordinator.policy.books import InstanceBook
from coordinator.policy.view import embedding_blocks
from core.stages import Stage


@dataclass(frozen=True, slots=True)
class Capacity:
    """What instances could hold if they were idle; no opinion on a stage that nobody plays."""

    prefills: tuple[tuple[int, int | None], ...]  # (tokens of the KV pool, embedding blocks)
    decodes: tuple[int, ...]  # tokens of the KV pool

    @property
    def prompt_tokens(self) -> int | None:
        """The longest prompt that a prefill instance could hold."""
        return max((kv_tokens for kv_tokens, _ in self.prefills), default=None)

    @property
    def total_tokens(self) -> int | None:
        """The longest prompt and answer that a decode instance could hold."""
        return max(self.decodes, default=None)

    def fits_prompt(self, num_tokens: int, media_tokens: Sequence[int]) -> bool:
        """Whether one prefill instance could hold the prompt and all its embeddings."""
        needed = embedding_blocks(media_tokens)
        return not self.prefills or any(
            num_tokens <= kv_tokens and (blocks is None or needed <= blocks)
            for kv_tokens, blocks in self.prefills
        )

    def fits_total(self, num_tokens: int) -> bool:
        return not self.decodes or num_tokens <= max(self.decodes)


def cluster_capacity(instances: Iterable[InstanceBook]) -> Capacity:
    views = list(instances)
    return Capacity(
        prefills=tuple(
            (view.total_kv_blocks * view.block_tokens, view.total_embedding_blocks)
            for view in views
            if Stage.PREFILL in view.roles
        ),
        decodes=tuple(
            view.total_kv_blocks * view.block_tokens for view in views if Stage.DECODE in view.roles
        ),
    )
