"""From a stage server's config to its caches."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from core.cache.chain import GRANULE_TOKENS
from kv_transfer.layout import PayloadKind
from kv_transfer.pool import Pool
from stage_servers.cache.kv_cache import KvCache, Told, can_cache
from stage_servers.cache.settings import CacheSettings
from stage_servers.config import StageConfig
from stage_servers.devices import available_memory_bytes

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

# Of the RAM under the device; an embedding is a small part of what the KV of its tokens is.
_HOST_PARTS = {PayloadKind.KV: 0.875, PayloadKind.EMBEDDING: 0.125}
_HOST_SHARE = 0.1  # of the memory that is free, where the device has its own and nothing was said
_HOST_MOST_BYTES = 8 << 30  # pinned at the start, which takes a second for a few GiB


def cache_settings(config: StageConfig, kind: PayloadKind, device: torch.device) -> CacheSettings | None:
    """Of the cache over one pool on that device; None: there is to be none."""
    if not config.prefix_cache:
        return None
    return CacheSettings(
        policy=config.cache_policy,
        host_bytes=int(_host_bytes(config, device) * _HOST_PARTS[kind]),
        ttl_s=config.cache_ttl_s,
    )


def make_kv_cache(config: StageConfig, kv: Pool, on_change: Told) -> KvCache | None:
    """Over the KV pool; None where the config or the size of blocks leaves no cache."""
    settings = cache_settings(config, PayloadKind.KV, kv.device)
    if settings is None:
        return None
    if not can_cache(kv.layout.block_tokens):
        logger.warning(
            "no KV is cached: blocks of %d tokens are not whole granules of %d",
            kv.layout.block_tokens,
            GRANULE_TOKENS,
        )
        return None
    return KvCache(kv.tensor, kv.blocks, kv.layout.model_fingerprint, settings, on_change=on_change)


def _host_bytes(config: StageConfig, device: torch.device) -> int:
    """A device that computes in RAM gains nothing from a copy there."""
    if config.cache_host_mib is not None:
        return config.cache_host_mib << 20
    if device.type == "cpu":
        return 0
    return min(_HOST_MOST_BYTES, int(available_memory_bytes() * _HOST_SHARE))
