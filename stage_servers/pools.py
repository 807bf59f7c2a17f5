"""How large an instance's two pools are, and their making."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kv_transfer.blocks import blocks_for
from kv_transfer.pool import EMBEDDING_BLOCK_TOKENS
from stage_servers.config import StageConfig
from stage_servers.devices import available_memory_bytes

if TYPE_CHECKING:
    from stage_servers.engine.served import ServedModel

logger = logging.getLogger(__name__)

_CPU_SHARE = 0.02  # of the memory that is free; several instances live on one host
_CPU_MOST_BYTES = 256 << 20  # reserved in shared memory at start
_CUDA_SHARE = 0.8  # of what is left beside the weights: steps and encoders need the rest
_EMBEDDING_TOKENS = 16_384


@dataclass(frozen=True, slots=True)
class PoolSizes:
    """Blocks of the KV pool and of the embedding pool."""

    kv_blocks: int
    embedding_blocks: int


def pool_sizes(model: ServedModel, config: StageConfig) -> PoolSizes:
    """As configured; what is not is sized from the memory at hand.

    On the CPU never under one full context, for memory that is never written takes no room. Raises
    ValueError where a GPU has no room for KV.
    """
    kv_blocks = config.kv_blocks or _kv_blocks(model, config)
    embedding_blocks = config.embedding_blocks or blocks_for(_EMBEDDING_TOKENS, EMBEDDING_BLOCK_TOKENS)
    return PoolSizes(kv_blocks, embedding_blocks)


def kv_token_bytes(model: ServedModel) -> int:
    """KV of one token over all layers."""
    return model.kv_planes * model.kv_token_elements * model.dtype.itemsize


def _kv_blocks(model: ServedModel, config: StageConfig) -> int:
    block_bytes = kv_token_bytes(model) * config.block_tokens
    one_context = blocks_for(model.context_tokens, config.block_tokens)
    if model.device.type != "cuda":
        budget_bytes = min(_CPU_MOST_BYTES, int(available_memory_bytes() * _CPU_SHARE))
        return max(one_context, budget_bytes // block_bytes)
    room_bytes = _cuda_room_bytes(model, config.device_share)
    kv_blocks = int(room_bytes * _CUDA_SHARE) // block_bytes
    if kv_blocks < 1:
        raise ValueError(
            f"device: {config.device} has {room_bytes >> 20} MiB for KV beside the weights, which is none; "
            "start fewer instances on it, or end what else uses it"
        )
    if kv_blocks < one_context:
        logger.warning(
            "KV has room for %d tokens, a context of %d",
            kv_blocks * config.block_tokens,
            model.context_tokens,
        )
    return kv_blocks


def _cuda_room_bytes(model: ServedModel, share: float) -> int:
    """What this instance may take beside what it has. Instances that start at once do not see each other's
    pools yet, so that each keeps to its share of the whole.
    """
    import torch

    free, total = torch.cuda.mem_get_info(model.device)
    own = torch.cuda.memory_reserved(model.device)
    return max(0, min(free, int(total * share) - own))
