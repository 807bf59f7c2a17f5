from __future__ import annotations

from simulator.caches import EncoderCache, PrefixCache


def test_the_least_recently_used_embedding_goes_first() -> None:
    cache = EncoderCache(100)
    cache.put(1, 40)
    cache.put(2, 40)
    assert cache.take(1)
    cache.put(3, 40)
    assert [cache.take(digest) for digest in (1, 2, 3)] == [True, False, True]
    assert cache.hits == 3


def test_what_has_no_digest_or_no_room_is_not_kept() -> None:
    cache = EncoderCache(100)
    cache.put(None, 10)
    cache.put(4, 101)
    assert not cache.take(None)
    assert not cache.take(4)


def test_a_prefix_hits_up_to_its_first_miss() -> None:
    cache = PrefixCache()
    cache.put((1, 2, 3), 10)
    assert cache.take((1, 2, 9, 3), 512) == 1024
    assert cache.take((2,), 512) == 512
    assert cache.hit_tokens == 1536


def test_prefixes_have_the_room_that_is_there() -> None:
    cache = PrefixCache()
    cache.put((1, 2, 3), 10)
    cache.put((4,), 2)
    assert [cache.take((granule,), 1) for granule in (1, 2, 3, 4)] == [0, 0, 1, 1]
