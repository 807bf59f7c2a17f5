"""The tenants' settings in force: what they allow, and how they change while the coordinator runs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from coordinator.audit import AuditLog
from coordinator.errors import NotAllowedError
from coordinator.tenants.settings import Tenants, load_tenants
from core.cache.scope import CacheScope

log = logging.getLogger(__name__)

# Clients choose their tenants' names: what is remembered of them is bounded.
_MAX_REMEMBERED = 4096


class Tenancy:
    """`on_shares` is told of cache shares, if there are any, and when they change; `on_change` of all
    settings when keys or shares change.
    """

    def __init__(
        self,
        path: Path | None,
        audit: AuditLog,
        on_shares: Callable[[Mapping[str, float]], None],
        on_change: Callable[[Tenants], None] = lambda _tenants: None,
    ) -> None:
        """Raises ValueError naming the file and the key that does not fit."""
        self._path = path
        self._audit = audit
        self._on_shares = on_shares
        self._on_change = on_change
        self._tenants = load_tenants(path)
        self._noted: dict[tuple[str, bool], None] = {}  # who asked for scope CLUSTER, oldest first
        self._note_settings("tenants_at_start")
        if self._tenants.cache_shares:
            on_shares(self._tenants.cache_shares)

    @property
    def tenants(self) -> Tenants:
        return self._tenants

    def scope_of(self, tenant: str, wanted: CacheScope | None) -> CacheScope:
        """The scope of a request, `wanted` None: as set for the tenant.

        Raises NotAllowedError where the tenant may not share.
        """
        settings = self._tenants.of(tenant)
        scope = wanted or settings.cache_scope
        if scope is CacheScope.CLUSTER:
            self._note_sharing(tenant, settings.may_share_cache)
            if not settings.may_share_cache:
                raise NotAllowedError("cache_scope", f"tenant {tenant!r} may not share its cache entries")
        return scope

    def reload(self) -> None:
        """Reads the file again; where it does not fit, the settings stay as they are."""
        try:
            tenants = load_tenants(self._path)
        except ValueError as error:
            log.error("tenants: stay as they are, %s", error)
            self._audit.note("tenants_refused", file=str(self._path), reason=str(error))
            return
        before, self._tenants = self._tenants, tenants
        if tenants != before:
            self._note_settings("tenants_changed")
        has_new_shares = tenants.cache_shares != before.cache_shares
        if has_new_shares:
            self._on_shares(tenants.cache_shares)
        if has_new_shares or tenants.keyring.keys != before.keyring.keys:
            self._on_change(tenants)

    def _note_settings(self, event: str) -> None:
        file = None if self._path is None else str(self._path)
        self._audit.note(event, file=file, **self._tenants.to_json())

    def _note_sharing(self, tenant: str, is_allowed: bool) -> None:
        """The first time only."""
        if (tenant, is_allowed) in self._noted:
            return
        self._noted[tenant, is_allowed] = None
        if len(self._noted) > _MAX_REMEMBERED:
            del self._noted[next(iter(self._noted))]
        self._audit.note("cluster_scope", tenant=tenant, is_allowed=is_allowed)
