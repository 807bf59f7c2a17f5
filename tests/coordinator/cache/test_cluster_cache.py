"""What instances said they have, by the size of their blocks and by their lives."""

from __future__ import annotations

import pytest

from coordinator.cache.cluster_cache import ClusterCache
from coordinator.stage_messages import CacheReport
from core.cache.chain import block_keys, extend_chain
from core.cache.keys import chain_start
from tests.coordinator.wire.test_stages import info

CHAIN = extend_chain(chain_start("model", b"s" * 32), range(16 * 200))


def attached(**block_tokens: int) -> ClusterCache:
    cache = ClusterCache()
    for name, size in block_tokens.items():
        cache.attach(info(instance_id=name, epoch=1, block_tokens=size))
    return cache


def stored(num_tokens: int, block_tokens: int = 16) -> CacheReport:
    return CacheReport(tuple(block_keys(CHAIN, block_tokens)[: num_tokens // block_tokens]))


@pytest.mark.parametrize("num_tokens", [320, 1024, 2048, 3200])
def test_blocks_of_several_sizes_are_told_apart(num_tokens: int) -> None:
    cache = attached(small=16, large=32, larger=64)
    cache.update("small", 1, stored(1600))
    cache.update("large", 1, stored(1120, 32))
    cache.update("larger", 1, stored(2560, 64))
    found = cache.prefix_tokens(CHAIN[: num_tokens // 16])
    assert found == {
        "small": min(num_tokens, 1600),
        "large": min(num_tokens, 1120),
        "larger": min(num_tokens, 2560),
    }


def test_an_instance_without_whole_granules_has_no_prefix() -> None:
    cache = attached(odd=24)
    cache.update("odd", 1, stored(1600))
    assert cache.prefix_tokens(CHAIN) == {}
    cache.detach("odd")


def test_a_life_ends_with_all_it_had() -> None:
    cache = attached(a=16)
    cache.update("a", 1, stored(160))
    cache.attach(info(instance_id="a", epoch=2, block_tokens=32))
    assert cache.prefix_tokens(CHAIN) == {}
    cache.update("a", 1, stored(160))  # late, of the life before
    assert cache.prefix_tokens(CHAIN) == {}
    cache.update("a", 2, stored(64, 32))
    assert cache.prefix_tokens(CHAIN) == {"a": 64}
    cache.detach("a")
    cache.detach("a")
    assert cache.prefix_tokens(CHAIN) == {}
    cache.tidy()
    cache.tidy()
    assert cache.num_keys == 0


def test_evicted_keys_and_holders() -> None:
    cache = attached(a=16, b=16)
    for name in "ab":
        cache.update(name, 1, stored(160))
    cache.update("a", 1, CacheReport((), tuple(CHAIN[4:10])))
    assert cache.prefix_tokens(CHAIN) == {"a": 64, "b": 160}
    assert cache.holders(CHAIN[5]) == ["b"]


def test_the_version_goes_up_where_an_answer_may_change() -> None:
    cache = ClusterCache()
    seen = [cache.version]
    cache.attach(info(instance_id="a", epoch=1))
    seen.append(cache.version)
    cache.update("a", 1, stored(16))
    seen.append(cache.version)
    cache.detach("a")
    seen.append(cache.version)
    assert seen == sorted(set(seen))
    cache.update("a", 1, stored(16))  # it is not here
    assert cache.version == seen[-1]


def test_room_is_made_for_what_pools_hold() -> None:
    cache = ClusterCache()
    cache.attach(info(instance_id="a", total_kv_blocks=100_000, total_embedding_blocks=0))
    assert cache.size_bytes > 100_000 * 32
    before = cache.size_bytes
    cache.attach(info(instance_id="b", total_kv_blocks=10_000))
    assert cache.size_bytes == before
