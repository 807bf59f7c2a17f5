"""What admins ask of the cluster's caches, and order."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.audit import AuditLog
from coordinator.cache.cluster_cache import ClusterCache
from coordinator.cache.explanations import Explanation, Explanations
from coordinator.cache.reasons import reasons
from coordinator.errors import NotFoundError
from coordinator.planner import Planner
from coordinator.policy.decisions import DISPATCHES, Decision
from coordinator.registry import Instance, Registry
from coordinator.stage_messages import CacheCounters, FlushCacheCommand


@dataclass(frozen=True, slots=True)
class CacheStatus:
    """What GetCache answers."""

    instances: tuple[tuple[str, tuple[CacheCounters, ...]], ...]  # by name, one per pool
    index_keys: int
    index_bytes: int


class CacheAdmin:
    def __init__(
        self,
        registry: Registry,
        cache: ClusterCache,
        explanations: Explanations,
        planner: Planner,
        audit: AuditLog,
    ) -> None:
        self._registry = registry
        self._cache = cache
        self._explanations = explanations
        self._planner = planner
        self._audit = audit

    def status(self) -> CacheStatus:
        """As of the newest heartbeats."""
        instances = tuple((each.instance_id, each.caches) for each in self._registry)
        return CacheStatus(instances, self._cache.num_keys, self._cache.size_bytes)

    def flush(
        self, command: FlushCacheCommand, instance_id: str | None, reason: str, peer: str
    ) -> tuple[str, ...]:
        """Has one instance, or all for None, forget; returns which were told. `peer` says who asked.

        Raises NotFoundError.
        """
        instances = tuple(self._registry) if instance_id is None else (self._instance(instance_id),)
        for instance in instances:
            instance.send(command)
        names = tuple(each.instance_id for each in instances)
        self._audit.note(
            "cache_flush",
            peer=peer,
            reason=reason,
            tenant=command.tenant or None,
            pool=None if command.pool is None else command.pool.value,
            instances=names,
        )
        return names

    def explain(self, request_id: str) -> tuple[Explanation, tuple[str, ...]]:
        """What it found, and why not more. Raises NotFoundError."""
        facts = self._explanations.get(request_id)
        if facts is None:
            raise NotFoundError("request_id", f"{request_id!r} is not among the last that were dispatched")
        return facts, reasons(facts, self._newest_dispatch(request_id))

    def _instance(self, instance_id: str) -> Instance:
        instance = self._registry.get(instance_id)
        if instance is None:
            raise NotFoundError("instance_id", f"{instance_id!r} is not attached")
        return instance

    def _newest_dispatch(self, request_id: str) -> Decision | None:
        found = self._planner.why(request_id, None)
        return next((each for each in reversed(found) if each.piece in DISPATCHES), None)
