"""What could never fit, however long it waited."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from coordinator.policy.view import InstanceView, embedding_blocks
from core.stages import Stage


@dataclass(frozen=True, slots=True)
class Capacity:
    """The largest request that some placement on an idle cluster could hold, in tokens.

    None where no instance plays the stage: no opinion until one does.
    """

    prompt_tokens: int | None  # a prompt, on a prefill instance
    total_tokens: int | None  # prompt and answer, on a decode instance
    embedding_blocks: int | None = None  # all media of one request

    def fits_media(self, media_tokens: Iterable[int]) -> bool:
        return self.embedding_blocks is None or embedding_blocks(media_tokens) <= self.embedding_blocks


def cluster_capacity(instances: Iterable[InstanceView]) -> Capacity:
    """Of the largest prefill and the largest decode instance."""
    views = list(instances)
    prefills = [v for v in views if Stage.PREFILL in v.roles]
    decodes = [v for v in views if Stage.DECODE in v.roles]
    bounded = [v.total_embedding_blocks for v in prefills if v.total_embedding_blocks is not None]
    return Capacity(
        prompt_tokens=max((v.total_kv_blocks * v.block_tokens for v in prefills), default=None),
        total_tokens=max((v.total_kv_blocks * v.block_tokens for v in decodes), default=None),
        embedding_blocks=max(bounded) if bounded and len(bounded) == len(prefills) else None,
    )
