from __future__ import annotations

import pytest

from core.cache.book import CacheBook
from core.cache.entry import Entry, Tier
from core.cache.lru import Lru
from core.cache.moves import MoveKind
from core.cache.seconds_saved import SecondsSaved
from core.cache.tails import tail_key, tail_units

TENANT = "t"


def key(name: object) -> bytes:
    return repr(name).encode().ljust(32, b"\0")


def path(*names: object) -> list[bytes]:
    return [key(name) for name in names]


def put(
    book: CacheBook, *names: object, now_s: float = 0.0, tenant: str = TENANT, blocks: int = 0
) -> list[Entry]:
    """A sequence of blocks of one byte, taken as far as they are there, stored, and released."""
    entries, kind = book.take(path(*names), now_s)
    for number, name in enumerate(names[len(entries) :], len(entries)):
        parent = entries[-1] if entries else None
        where = (blocks + number,)
        entry = book.store(
            key(name), parent, where, now_s, tenant=tenant, size_bytes=1, seconds=1.0, kind=kind
        )
        if entry is None:
            break
        entries.append(entry)
    book.release(entries, now_s)
    return entries


def here(book: CacheBook) -> set[bytes]:
    return {entry.key for entry in book}


def test_a_prefix_is_found_as_far_as_it_is_kept() -> None:
    book = CacheBook(Lru(), 10)
    put(book, "a", "b", "c")
    found, _ = book.take(path("a", "b", "x"), 1)
    assert [entry.key for entry in found] == path("a", "b")
    assert [entry.blocks for entry in found] == [(0,), (1,)]
    assert book.take(path("b"), 1)[0] == [book.match(path("a", "b"), 1)[1]]  # by its own key: chains differ


def test_leaves_go_first_and_what_is_in_use_stays() -> None:
    book = CacheBook(Lru(), 3)
    put(book, "a", "b", now_s=0)
    used, _ = book.take(path("a"), 1)
    put(book, "x", "y", now_s=2)
    assert here(book) == {*path("a", "x", "y")}
    put(book, "p", "q", "r", now_s=3)
    assert here(book) == {*path("a", "p", "q")}
    assert book.stats.refused == 1
    book.release(used, 4)
    book.check_integrity()


def test_moves_name_the_blocks_that_are_free() -> None:
    book = CacheBook(Lru(), 2)
    put(book, "a", "b", blocks=7)
    assert book.drain().stored == (*path("a", "b"),)
    put(book, "x", now_s=1)
    changes = book.drain()
    assert [(move.kind, move.tier, move.blocks) for move in changes.moves] == [
        (MoveKind.DROP, Tier.DEVICE, (8,))
    ]
    assert changes.stored == (key("x"),)
    assert changes.dropped == (key("b"),)
    assert book.drain().moves == ()


def test_what_leaves_the_device_lies_on_the_host_until_it_is_taken() -> None:
    book = CacheBook(Lru(), 2, host_bytes=2)
    put(book, "a", "b")
    put(book, "x", "y", now_s=1)
    moves = book.drain().moves
    assert [(move.kind, move.blocks) for move in moves] == [(MoveKind.DEMOTE, (1,)), (MoveKind.DEMOTE, (0,))]
    for move in moves:
        move.entry.blocks = (100 + move.blocks[0],)
    taken, _ = book.take(path("a", "b"), 2)
    assert [entry.key for entry in taken] == path("a", "b")
    promoted = [move for move in book.drain().moves if move.kind is MoveKind.PROMOTE]
    assert [move.blocks for move in promoted] == [(100,), (101,)]
    assert {entry.tier for entry in taken} == {Tier.DEVICE}
    book.release(taken, 3)
    book.check_integrity()


def test_the_host_drops_what_went_unused_longest_to_make_room() -> None:
    book = CacheBook(Lru(), 1, host_bytes=1)
    put(book, "a")
    put(book, "b", now_s=1)
    book.drain()
    put(book, "c", now_s=2)
    assert here(book) == {*path("b", "c")}
    assert [(move.kind, move.entry.key, move.tier) for move in book.drain().moves] == [
        (MoveKind.DROP, key("a"), Tier.HOST),
        (MoveKind.DEMOTE, key("b"), Tier.DEVICE),
    ]


def test_what_would_leave_the_host_at_once_is_not_copied_there() -> None:
    """The host keeps the costly one: of two that leave the device together the other goes for good."""
    book = CacheBook(SecondsSaved(16), 2, host_bytes=1)
    for name, seconds, block in (("cheap", 1.0, 4), ("dear", 50.0, 5)):
        entry = book.store(key(name), None, (block,), 0, tenant=TENANT, size_bytes=1, seconds=seconds)
        assert entry is not None
        book.release([entry], 0)
    assert book.shed(2, TENANT, 1) == 2
    moves = [(move.kind, move.tier, move.blocks) for move in book.drain().moves]
    assert moves == [(MoveKind.DROP, Tier.DEVICE, (4,)), (MoveKind.DEMOTE, Tier.DEVICE, (5,))]
    assert (book.stats.demoted, book.stats.dropped_for_room) == (1, 1)
    book.check_integrity()


def test_what_is_computed_again_while_it_lies_on_the_host_lies_on_the_device() -> None:
    book = CacheBook(Lru(), 1, host_bytes=2)
    put(book, "a", blocks=5)
    put(book, "b", now_s=1)
    book.drain()
    entry = book.store(key("a"), None, (9,), 2, tenant=TENANT, size_bytes=1, seconds=1.0)
    assert entry is not None
    assert (entry.tier, entry.blocks) == (Tier.DEVICE, (9,))
    book.release([entry], 2)
    book.check_integrity()


def test_of_two_that_compute_the_same_the_second_learns_of_the_first() -> None:
    book = CacheBook(Lru(), 5)
    first, second = (
        book.store(key("a"), None, (at,), 0, tenant=TENANT, size_bytes=1, seconds=1.0) for at in (3, 4)
    )
    assert first is second
    assert first is not None
    assert first.blocks == (3,)
    assert first.refs == 2


def test_entries_go_that_were_unused_for_too_long_but_not_those_in_use() -> None:
    book = CacheBook(Lru(), 10, ttl_s=60)
    put(book, "a", "b", now_s=0)
    used, _ = book.take(path("a"), 50)
    assert book.match(path("a", "b"), 59.9) == [*used, *book.match(path("a", "b"), 0)[1:]]
    assert book.match(path("a", "b"), 60) == used
    book.expire(100)
    assert here(book) == {key("a")}
    assert book.stats.dropped_by_age == 1
    book.release(used, 100)
    assert book.take(path("a"), 160) == ([], 0)
    book.check_integrity()


def test_a_tenant_over_its_share_evicts_its_own_and_nobody_flushes_another() -> None:
    book = CacheBook(Lru(), 10, device_shares={"small": 4})
    put(book, *range(10), tenant="big", now_s=0)
    put(book, "a", "b", "c", "d", "e", "f", tenant="small", now_s=1)
    assert book.used_bytes(Tier.DEVICE, "small") == 4  # what is its own; then its own leaves go
    put(book, *range(20, 40), tenant="big", now_s=2)
    assert book.used_bytes(Tier.DEVICE, "small") == 4
    assert book.used_bytes(Tier.DEVICE, "big") == 6
    book.check_integrity()


def test_tenants_without_names_have_equal_shares_and_use_what_others_leave() -> None:
    book = CacheBook(Lru(), 12)
    put(book, *range(12), tenant="a")
    assert book.used_bytes(Tier.DEVICE, "a") == 12
    for tenant in "bc":
        put(book, *(f"{tenant}{number}" for number in range(12)), tenant=tenant, now_s=1)
    assert [book.used_bytes(Tier.DEVICE, tenant) for tenant in "abc"] == [4, 4, 4]


def test_shares_may_change_and_count_when_room_is_needed() -> None:
    book = CacheBook(Lru(), 10)
    put(book, *range(10), tenant="big", now_s=0)
    book.set_shares({"big": 0.8})
    assert book.used_bytes(Tier.DEVICE, "big") == 10
    put(book, "a", "b", "c", "d", tenant="small", now_s=1)
    assert book.used_bytes(Tier.DEVICE, "big") == 8
    book.set_shares({})
    put(book, "e", "f", "g", tenant="small", now_s=2)
    assert book.used_bytes(Tier.DEVICE, "big") == 5
    with pytest.raises(ValueError, match="shares: are more than"):
        book.set_shares({"a": 0.6, "b": 0.6})
    book.check_integrity()


def test_shares_of_more_than_there_is_are_refused() -> None:
    with pytest.raises(ValueError, match="shares: are more than the 5 bytes"):
        CacheBook(Lru(), 5, device_shares={"a": 3, "b": 3})


def test_running_work_gets_room_from_what_nobody_uses() -> None:
    book = CacheBook(Lru(), 6)
    put(book, "a", "b", tenant="a")
    put(book, "x", "y", tenant="b", now_s=1)
    held, _ = book.take(path("x"), 2)
    assert book.shed(2, "b", 2) == 2
    assert here(book) == {*path("a", "x")}
    assert book.shed(9, "b", 2) == 1
    assert here(book) == {key("x")}
    book.release(held, 3)


def test_nobody_finds_what_was_flushed_and_its_users_go_on() -> None:
    book = CacheBook(Lru(), 10)
    put(book, "a", "b", tenant="a")
    put(book, "a", "b", "c", tenant="other")
    put(book, "x", tenant="other")
    used, _ = book.take(path("a", "b"), 1)
    book.drain()
    assert book.flush(1, "a") == 3  # and what goes on from it
    assert book.match(path("a"), 1) == []
    assert book.store(key("d"), used[-1], (8,), 1, tenant="a", size_bytes=1, seconds=1.0) is None
    assert [move.entry.key for move in book.drain().moves] == path("c")
    again = put(book, "a", tenant="a", now_s=2)
    book.release(used, 3)
    assert [move.entry.key for move in book.drain().moves] == path("b", "a")
    assert book.match(path("a"), 3) == again
    book.check_integrity()


def test_what_is_released_too_often_is_an_error() -> None:
    book = CacheBook(Lru(), 10)
    entries = put(book, "a")
    with pytest.raises(ValueError, match="released more often"):
        book.release(entries, 0)


def store_tail(book: CacheBook, parent: Entry, tokens: list[int], block: int, now_s: float = 0.0) -> Entry:
    units = tail_units(tokens)
    entry = book.store(
        tail_key(parent.key, units),
        parent,
        (block,),
        now_s,
        tenant=TENANT,
        size_bytes=1,
        seconds=1.0,
        tail=units,
    )
    assert entry is not None
    book.release([entry], now_s)
    return entry


def test_a_begun_block_is_copied_as_far_as_its_tokens_are_the_same() -> None:
    book = CacheBook(Lru(), 10)
    put(book, "a")
    (parent,), _ = book.take(path("a"), 0)
    store_tail(book, parent, [1, 2, 3, 4], 5)
    store_tail(book, parent, [1, 2, 9], 6)
    found = book.take_tail(parent, [1, 2, 3, 7], 1)
    assert found is not None
    entry, num_tokens = found
    assert (entry.blocks, num_tokens, entry.refs) == ((5,), 3, 1)
    assert book.take_tail(parent, [2, 3], 1) is None
    assert book.take_tail(parent, [], 1) is None
    book.release([parent, entry], 2)
    book.check_integrity()


def test_a_longer_tail_takes_the_place_of_the_one_it_goes_on_from() -> None:
    book = CacheBook(Lru(), 10)
    put(book, "a")
    (parent,), _ = book.take(path("a"), 0)
    short = store_tail(book, parent, [1, 2], 5)
    long = store_tail(book, parent, [1, 2, 3], 6)
    assert here(book) == {key("a"), long.key}
    assert [move.entry for move in book.drain().moves] == [short]
    book.release([parent], 1)
    book.check_integrity()


def test_a_tail_of_a_picture_is_not_that_of_a_text_that_spells_it() -> None:
    book = CacheBook(Lru(), 10)
    put(book, "a")
    (parent,), _ = book.take(path("a"), 0)
    store_tail(book, parent, [7, 7], 5)
    assert book.take_tail(parent, [(bytes(32), 0), (bytes(32), 1)], 0) is None


def test_what_is_not_urgent_costs_no_other_tenant_its_share() -> None:
    book = CacheBook(Lru(), 8)
    put(book, "a1", tenant="a")
    put(book, "b1", tenant="b")
    assert book.shed(2, "a", 1, is_urgent=False) == 1
    assert here(book) == {key("b1")}
    assert book.shed(1, "a", 1) == 1
