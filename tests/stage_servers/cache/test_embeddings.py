"""What is kept is found, with its bytes; what nobody uses is room; what is used stays."""

from __future__ import annotations

import asyncio

import pytest
import torch

from core.sequence import CacheUse
from kv_transfer.room import Room
from tests.stage_servers.cache.keeping import BLOCK_BYTES, USE, Keeping, embedding, span

OTHER = CacheUse(b"o" * 32, "other")


def test_what_was_encoded_here_is_found_where_it_lies() -> None:
    keeping = Keeping()
    assert keeping.keep("a", 1)
    held = keeping.cache.find(keeping.key("a"), 20)
    assert held is not None
    assert torch.equal(held.embedding, embedding(1))
    assert held.embedding.untyped_storage().data_ptr() == keeping.pool.memory.untyped_storage().data_ptr()
    held.release()
    keeping.check()


def test_blocks_of_a_peer_are_taken_over_without_a_copy() -> None:
    keeping = Keeping()
    blocks = keeping.arrive(2)
    keeping.cache.adopt(keeping.key("a"), "t", blocks, 20).release()
    held = keeping.cache.find(keeping.key("a"), 20)
    assert held is not None
    assert held.blocks == tuple(blocks)
    assert torch.equal(held.embedding, embedding(2))
    held.release()
    keeping.check()


def test_a_second_arrival_of_the_same_gives_its_blocks_back() -> None:
    keeping = Keeping()
    first, second = (keeping.cache.adopt(keeping.key("a"), "t", keeping.arrive(3), 20) for _ in range(2))
    assert first.blocks == second.blocks
    assert keeping.pool.blocks.num_free == 6
    for held in (first, second):
        held.release()
    keeping.check()


@pytest.mark.parametrize("use", [None, OTHER])
def test_another_salt_or_none_does_not_hit(use: CacheUse | None) -> None:
    keeping = Keeping()
    keeping.keep("a")
    key = keeping.cache.key_of(use, span("a"))
    assert key is None or keeping.cache.find(key, 20) is None
    keeping.check()


def test_an_item_without_identity_has_no_key() -> None:
    assert Keeping().cache.key_of(USE, span("")) is not None
    nameless = span("")
    object.__setattr__(nameless, "identity", b"")
    assert Keeping().cache.key_of(USE, nameless) is None


def test_what_is_least_worth_goes_when_there_is_no_room() -> None:
    keeping = Keeping()
    for number in range(5):
        assert keeping.keep(str(number), number)
    assert not keeping.has("0")
    assert all(keeping.has(str(number)) for number in range(1, 5))
    assert keeping.cache.counters().evictions["room"] == 1
    keeping.check()


def test_seconds_decide_who_stays() -> None:
    keeping = Keeping(policy="seconds-saved")
    keeping.keep("slow", seconds=9.0)
    for number in range(5):
        keeping.keep(str(number), seconds=0.1)
    assert keeping.has("slow")
    keeping.check()


async def test_a_short_pool_gets_what_nobody_uses_and_nothing_else() -> None:
    keeping = Keeping()
    for number in range(4):
        keeping.keep(str(number), number)
    held = keeping.cache.find(keeping.key("0"), 20)
    assert held is not None
    async with asyncio.timeout(60):
        blocks = await Room(keeping.pool.blocks).take(6)
    assert keeping.cache.keys == [keeping.key("0")]
    keeping.pool.write_tokens(0, blocks, 0, torch.full((96, 6), 7.0))
    assert torch.equal(held.embedding, embedding(0))
    held.release()
    keeping.pool.blocks.release(blocks)
    keeping.check()


async def test_who_waits_for_room_gets_it_when_an_entry_is_released() -> None:
    keeping = Keeping()
    for number in range(4):
        keeping.keep(str(number), number)
    held = [keeping.cache.find(keeping.key(str(number)), 20) for number in range(4)]
    taking = asyncio.create_task(Room(keeping.pool.blocks).take(4))
    await asyncio.sleep(0)
    assert not taking.done()
    for each in held:
        assert each is not None
        each.release()
    async with asyncio.timeout(60):
        keeping.pool.blocks.release(await taking)
    assert len(keeping.cache.keys) == 2
    keeping.check()


def test_what_does_not_fit_beside_what_is_used_is_not_kept() -> None:
    keeping = Keeping()
    blocks = keeping.pool.blocks.allocate(7)
    assert not keeping.keep("a")
    assert keeping.cache.counters().refused == 1
    keeping.pool.blocks.release(blocks)
    keeping.check()


def test_an_arrival_that_cannot_be_kept_can_be_used() -> None:
    keeping = Keeping(num_blocks=2, shares={"other": 1.0})
    held = keeping.cache.adopt(keeping.key("a"), "t", keeping.arrive(1), 20)
    keeping.cache.flush()
    assert torch.equal(held.embedding, embedding(1))
    assert keeping.pool.blocks.num_free == 0
    held.release()
    assert keeping.pool.blocks.num_free == 2
    keeping.check()


def test_a_tenant_keeps_its_share_against_another() -> None:
    keeping = Keeping(shares={"t": 0.5})
    keeping.keep("mine")
    for number in range(6):
        assert keeping.keep(str(number), use=OTHER)
    assert keeping.has("mine")
    keeping.check()


def test_what_goes_unused_too_long_is_dropped() -> None:
    keeping = Keeping(ttl_s=10)
    keeping.keep("a")
    keeping.clock.advance(9)
    keeping.cache.tidy()
    assert keeping.has("a")
    keeping.clock.advance(1)
    keeping.cache.tidy()
    assert not keeping.has("a")
    assert keeping.cache.counters().evictions["age"] == 1
    keeping.check()


def test_what_leaves_the_pool_lies_in_ram_and_comes_back_equal() -> None:
    keeping = Keeping(host_bytes=8 * BLOCK_BYTES)
    for number in range(6):
        keeping.keep(str(number), number)
    counters = keeping.cache.counters()
    assert (counters.demoted, counters.host_bytes, counters.entries) == (2, 4 * BLOCK_BYTES, 6)
    held = keeping.cache.find(keeping.key("0"), 20)
    assert held is not None
    assert torch.equal(held.embedding, embedding(0))
    assert keeping.cache.counters().promoted == 1
    held.release()
    keeping.check()


async def test_what_lies_in_ram_is_missed_where_the_pool_has_no_room() -> None:
    keeping = Keeping(host_bytes=8 * BLOCK_BYTES)
    keeping.keep("a", 1)
    async with asyncio.timeout(60):
        blocks = await Room(keeping.pool.blocks).take(8)
    assert keeping.has("a")
    assert keeping.cache.find(keeping.key("a"), 20) is None
    keeping.pool.blocks.release(blocks)
    held = keeping.cache.find(keeping.key("a"), 20)
    assert held is not None
    assert torch.equal(held.embedding, embedding(1))
    held.release()
    keeping.check()


def test_a_flush_of_one_tenant_leaves_others_and_users_alone() -> None:
    keeping = Keeping()
    keeping.keep("a", 1)
    keeping.keep("a", 2, use=OTHER)
    held = keeping.cache.find(keeping.key("a"), 20)
    assert held is not None
    assert keeping.cache.flush("t") == 1
    assert torch.equal(held.embedding, embedding(1))
    assert not keeping.has("a")
    assert keeping.has("a", OTHER)
    held.release()
    assert keeping.pool.blocks.num_free == 6
    keeping.check()


def test_counters_tell_what_was_found() -> None:
    keeping = Keeping()
    keeping.keep("a", seconds=2.0)
    for name in ("a", "b", "a"):
        held = keeping.cache.find(keeping.key(name), 20)
        if held is not None:
            held.release()
    counters = keeping.cache.counters()
    assert (counters.lookups, counters.hits, counters.hit_bytes) == (3, 2, 4 * BLOCK_BYTES)
    assert (counters.stored, counters.saved_s, counters.entries) == (1, 4.0, 1)
    assert (counters.device_bytes, counters.device_capacity_bytes) == (2 * BLOCK_BYTES, 8 * BLOCK_BYTES)
    keeping.check()


def test_idle_blocks_are_those_that_nobody_uses() -> None:
    keeping = Keeping()
    keeping.keep("a")
    keeping.keep("b")
    held = keeping.cache.find(keeping.key("a"), 20)
    assert held is not None
    assert (keeping.cache.num_blocks, keeping.cache.num_idle_blocks) == (4, 2)
    with pytest.raises(AssertionError, match="in use"):
        keeping.cache.check_idle()
    held.release()
    with pytest.raises(ValueError, match="more often"):
        held.release()
    keeping.check()
