"""What admins are told of caches."""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.cache.admin import CacheStatus
from coordinator.cache.explanations import Explanation, ItemFacts
from coordinator.errors import InvalidFieldError
from coordinator.stage_messages import FlushCacheCommand
from coordinator.wire.caches import from_counters, to_pool
from coordinator.wire.inference import from_scope
from elasticmm.v1 import admin_pb2 as pb
from elasticmm.v1 import stage_control_pb2


def from_cache_status(status: CacheStatus) -> pb.GetCacheResponse:
    instances = [
        pb.InstanceCaches(instance_id=name, caches=[from_counters(each) for each in caches])
        for name, caches in status.instances
    ]
    return pb.GetCacheResponse(
        instances=instances, index_keys=status.index_keys, index_bytes=status.index_bytes
    )


def to_flush(message: pb.FlushCacheRequest) -> FlushCacheCommand:
    """Raises InvalidFieldError for a pool that this version does not know: that would be all of them."""
    pool = to_pool(message.pool)
    if pool is None and message.pool != stage_control_pb2.CACHE_POOL_UNSPECIFIED:
        raise InvalidFieldError("pool", f"{message.pool} is no pool that is known here")
    return FlushCacheCommand(message.tenant, pool)


def from_explanation(facts: Explanation, reasons: Sequence[str]) -> pb.ExplainCacheResponse:
    return pb.ExplainCacheResponse(
        request_id=facts.request_id,
        tenant=facts.tenant,
        scope=from_scope(facts.scope),
        prompt_tokens=facts.prompt_tokens,
        cached_tokens=facts.cached_tokens or 0,
        known_tokens=facts.known_tokens,
        known_instance_id=facts.known_at or "",
        prefill_instance_id=facts.prefill,
        media=[_from_item(item) for item in facts.items],
        reasons=reasons,
    )


def _from_item(item: ItemFacts) -> pb.MediaExplanation:
    return pb.MediaExplanation(
        field=item.field,
        was_cached=item.was_cached,
        known_instance_ids=item.known,
        encode_instance_id=item.encoder,
    )
