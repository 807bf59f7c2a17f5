"""Only what changed is told, in few messages; who is new is told all."""

from __future__ import annotations

import asyncio
from hashlib import sha256

import pytest

from elasticmm.v1 import stage_control_pb2 as pb
from stage_servers.cache import reports as reports_module
from stage_servers.cache.reports import CacheReports
from stage_servers.reports import Reports


def key(name: object) -> bytes:
    return sha256(repr(name).encode()).digest()


async def told(reports: Reports) -> tuple[set[bytes], set[bytes]]:
    async with asyncio.timeout(60):
        report = (await reports.next()).cache
    return keys_of(report.stored), keys_of(report.evicted)


def keys_of(joined: bytes) -> set[bytes]:
    return {joined[at : at + 32] for at in range(0, len(joined), 32)}


async def test_changes_of_a_while_leave_together_and_net() -> None:
    reports = Reports()
    caches = CacheReports(reports)
    caches.attach()
    caches.note([key(1), key(2)], [])
    await asyncio.to_thread(caches.note, [key(3)], [key(2)])
    assert await told(reports) == ({key(1), key(3)}, set())
    caches.note([key(4)], [key(1), key(4)])
    caches.note([key(1)], [key(3)])
    assert await told(reports) == (set(), {key(3)})


async def test_what_comes_to_nothing_is_not_told() -> None:
    reports = Reports()
    caches = CacheReports(reports)
    caches.attach()
    caches.note([key(1)], [])
    caches.note([], [key(1)])
    caches.note([key(2)], [])
    assert await told(reports) == ({key(2)}, set())
    assert reports._outbox.empty()


async def test_a_new_coordinator_is_told_of_all_that_is_kept() -> None:
    reports = Reports()
    caches = CacheReports(reports)
    caches.note([key(1), key(2)], [])
    caches.note([], [key(2)])
    for _ in range(2):
        caches.attach()
        assert await told(reports) == ({key(1)}, set())
        caches.note([key(3)], [])
        caches.detach()
        caches.note([], [key(3)])
    assert reports._outbox.empty()


async def test_reports_are_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports_module, "_MOST_KEYS", 3)
    reports = Reports()
    caches = CacheReports(reports)
    caches.note([key(number) for number in range(7)], [])
    caches.attach()
    sizes = [len((await told(reports))[0]) for _ in range(3)]
    assert sizes == [3, 3, 1]


async def test_counters_are_asked_for_anew() -> None:
    caches = CacheReports(Reports())
    counts = iter((1, 2))
    caches.add_counters(lambda: pb.CacheCounters(pool=pb.CACHE_POOL_KV, entries=next(counts)))
    assert [caches.counters()[0].entries for _ in range(2)] == [1, 2]
