"""What one tenant left in caches is in no answer to another, whatever both send."""

from __future__ import annotations

import pytest

from coordinator.cache.index import ClusterIndex
from core.cache.chain import MediaRange, block_keys, extend_chain
from core.cache.keys import chain_start, embedding_key, media_identity
from core.cache.scope import CacheScope, salt_of

MODEL = "fingerprint"
PICTURE = media_identity(b"d" * 32, {"size": 28})
TENANT, CLUSTER = CacheScope.TENANT, CacheScope.CLUSTER


def keys_of(scope: CacheScope, tenant: str, salt: str = "") -> tuple[list[bytes], bytes]:
    """Of the same text and picture for everybody: blocks of 16 tokens, and the embedding."""
    salted = salt_of(scope, tenant, salt)
    assert salted is not None
    chain = extend_chain(chain_start(MODEL, salted), range(64), [MediaRange(20, 4, PICTURE)])
    return block_keys(chain, 16), embedding_key(MODEL, salted, PICTURE)


@pytest.fixture
def index() -> ClusterIndex:
    """Tenant a has sent it in its own scope, tenant b in the cluster's."""
    index = ClusterIndex()
    for name, (blocks, embedding) in (("p0", keys_of(TENANT, "a")), ("p1", keys_of(CLUSTER, "b"))):
        index.attach(name, 1)
        index.update(name, 1, [*blocks, embedding])
    return index


@pytest.mark.parametrize(
    ("scope", "tenant", "salt", "found"),
    [
        (TENANT, "a", "", ["p0"]),
        (TENANT, "b", "", []),
        (TENANT, "c", "", []),
        (TENANT, "a", "s", []),
        (CLUSTER, "a", "", ["p1"]),
        (CLUSTER, "c", "s", []),
        (TENANT, "", "a", []),
    ],
)
def test_who_finds_what(
    index: ClusterIndex, scope: CacheScope, tenant: str, salt: str, found: list[str]
) -> None:
    blocks, embedding = keys_of(scope, tenant, salt)
    assert list(index.prefixes(blocks)) == found
    assert index.holders(embedding) == found
