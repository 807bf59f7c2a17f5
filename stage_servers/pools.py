"""How large an instance's two pools are, and their making."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kv_transfer.blocks import blocks_for
from kv_transfer.pool import EMBEDDING_BLOCK_TOKENS
from stage_servers.config import StageConfig
from stage_servers.devices import available_memory_bytes

if TYPE_CHECKING:
    from stage_servers.engine.served import ServedModel

_CPU_SHARE = 0.02  # of the memory that is free; several instances live on one host
_CPU_MOST_BYTES = 256 << 20  # reserved in shared memory at start
_CUDA_SHARE = 0.8
_EMBEDDING_TOKENS = 16_384


@dataclass(frozen=True, slots=True)
class PoolSizes:
    """Blocks of the KV pool and of the embedding pool."""

    kv_blocks: int
    embedding_blocks: int


def pool_sizes(model: ServedModel, config: StageConfig) -> PoolSizes:
    """As configured; what is not is sized from the memory at hand, never under one full context."""
    kv_blocks = config.kv_blocks
    if kv_blocks is None:
        block_bytes = kv_token_bytes(model) * config.block_tokens
        one_context = blocks_for(model.context_tokens, config.block_tokens)
        kv_blocks = max(one_context, _kv_budget_bytes(model) // block_bytes)
    embedding_blocks = config.embedding_blocks or blocks_for(_EMBEDDING_TOKENS, EMBEDDING_BLOCK_TOKENS)
    return PoolSizes(kv_blocks, embedding_blocks)


def kv_token_bytes(model: ServedModel) -> int:
    """KV of one token over all layers."""
    return model.kv_planes * model.kv_token_elements * model.dtype.itemsize


def _kv_budget_bytes(model: ServedModel) -> int:
    if model.device.type == "cuda":
        import torch

        free, _ = torch.cuda.mem_get_info(model.device)
        return int(free * _CUDA_SHARE)
    return min(_CPU_MOST_BYTES, int(available_memory_bytes() * _CPU_SHARE))
