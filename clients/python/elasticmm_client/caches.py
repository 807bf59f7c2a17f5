"""What a cluster's caches hold and did, and what a request found in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from elasticmm.v1 import admin_pb2, inference_pb2, stage_control_pb2

PoolName = Literal["kv", "embedding"]

_POOLS: dict[int, PoolName] = {
    stage_control_pb2.CACHE_POOL_KV: "kv",
    stage_control_pb2.CACHE_POOL_EMBEDDING: "embedding",
}
_SCOPES = {
    inference_pb2.CACHE_SCOPE_NONE: "none",
    inference_pb2.CACHE_SCOPE_TENANT: "tenant",
    inference_pb2.CACHE_SCOPE_CLUSTER: "cluster",
}


@dataclass(frozen=True, slots=True)
class PoolCache:
    """Of one pool of one instance; counts from the start of its process."""

    pool: PoolName
    entries: int
    device_bytes: int
    host_bytes: int
    device_capacity_bytes: int
    host_capacity_bytes: int
    lookups: int  # requests (of kv) or pictures (of embedding) that were looked for
    hits: int  # blocks or embeddings that were found
    hit_bytes: int
    stored: int
    evictions: Mapping[str, int]  # by cause: "room", "age", "flush"
    refused: int  # could not be kept
    saved_s: float
    demoted: int  # moved from the device to the host
    promoted: int  # and back
    pulled: int  # brought from another instance
    pulled_bytes: int


@dataclass(frozen=True, slots=True)
class InstanceCache:
    id: str
    pools: tuple[PoolCache, ...]  # empty: it has not told yet


@dataclass(frozen=True, slots=True)
class ClusterCache:
    """Instances in order of their ids."""

    instances: tuple[InstanceCache, ...]
    index_keys: int  # blocks and embeddings that the coordinator knows of
    index_bytes: int  # memory that this takes


@dataclass(frozen=True, slots=True)
class MediaExplanation:
    field: str  # where it stood in the request: "messages[0].parts[1].image"
    was_cached: bool  # it did not have to be encoded
    known_instances: tuple[str, ...]  # who had its embedding when the request was dispatched
    encode_instance: str  # where it was sent


@dataclass(frozen=True, slots=True)
class CacheExplanation:
    request_id: str
    tenant: str
    scope: str  # "none", "tenant" or "cluster"
    prompt_tokens: int
    cached_tokens: int  # of the prompt, that came from a cache
    known_tokens: int  # of the longest prefix that an instance had when it was dispatched
    known_instance: str  # "" if none had any
    prefill_instance: str
    media: tuple[MediaExplanation, ...]
    reasons: tuple[str, ...]  # what kept it from finding more, a sentence each


def pool_number(pool: str | None) -> stage_control_pb2.CachePool.ValueType:
    """None: both. Raises ValueError."""
    if pool is None:
        return stage_control_pb2.CACHE_POOL_UNSPECIFIED
    for number, name in _POOLS.items():
        if name == pool:
            return stage_control_pb2.CachePool.ValueType(number)
    raise ValueError(f"{pool!r} is neither of {', '.join(_POOLS.values())}")


def cache_from_proto(message: admin_pb2.GetCacheResponse) -> ClusterCache:
    instances = sorted((_instance(each) for each in message.instances), key=lambda each: each.id)
    return ClusterCache(tuple(instances), message.index_keys, message.index_bytes)


def explanation_from_proto(message: admin_pb2.ExplainCacheResponse) -> CacheExplanation:
    return CacheExplanation(
        request_id=message.request_id,
        tenant=message.tenant,
        scope=_SCOPES.get(message.scope, ""),
        prompt_tokens=message.prompt_tokens,
        cached_tokens=message.cached_tokens,
        known_tokens=message.known_tokens,
        known_instance=message.known_instance_id,
        prefill_instance=message.prefill_instance_id,
        media=tuple(_media(each) for each in message.media),
        reasons=tuple(message.reasons),
    )


def _instance(message: admin_pb2.InstanceCaches) -> InstanceCache:
    pools = (_pool(each) for each in message.caches if each.pool in _POOLS)
    return InstanceCache(message.instance_id, tuple(pools))


def _pool(message: stage_control_pb2.CacheCounters) -> PoolCache:
    return PoolCache(
        pool=_POOLS[message.pool],
        entries=message.entries,
        device_bytes=message.device_bytes,
        host_bytes=message.host_bytes,
        device_capacity_bytes=message.device_capacity_bytes,
        host_capacity_bytes=message.host_capacity_bytes,
        lookups=message.lookups,
        hits=message.hits,
        hit_bytes=message.hit_bytes,
        stored=message.stored,
        evictions=dict(message.evictions),
        refused=message.refused,
        saved_s=message.saved_s,
        demoted=message.demoted,
        promoted=message.promoted,
        pulled=message.pulled,
        pulled_bytes=message.pulled_bytes,
    )


def _media(message: admin_pb2.MediaExplanation) -> MediaExplanation:
    return MediaExplanation(
        message.field, message.was_cached, tuple(message.known_instance_ids), message.encode_instance_id
    )
