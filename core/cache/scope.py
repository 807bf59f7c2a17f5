"""Who shares cache entries with whom: the salt that is a part of every key."""

from __future__ import annotations

from enum import Enum

from core.cache.keys import digest_of

_SALT = b"elasticmm salt"


class CacheScope(Enum):
    """Whose entries a request may find, and who may find its own."""

    NONE = "none"  # nothing is looked up or kept
    TENANT = "tenant"  # requests of the same tenant
    CLUSTER = "cluster"  # requests of all tenants that ask for this scope


def salt_of(scope: CacheScope, tenant: str, cache_salt: str = "") -> bytes | None:
    """32 bytes that two requests have in common exactly if they may share; None where nobody may.

    `cache_salt` parts the requests of a scope further.
    """
    if scope is CacheScope.NONE:
        return None
    owner = tenant if scope is CacheScope.TENANT else None
    return digest_of(_SALT, scope.value, owner, cache_salt)
