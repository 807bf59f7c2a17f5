"""Whose entry goes, against the plainest rule over all tenants."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.cache.entry import Entry
from core.cache.fullest import Fullest
from core.cache.lru import Lru
from core.cache.shares import Shares
from core.cache.tier import TierMemory

TENANTS = [*"abcdef"]


class Plain:
    """Looks at every tenant."""

    def __init__(self, shares: Shares, entries: list[Entry], evictable: list[Entry]) -> None:
        self.bytes_of = {t: sum(e.size_bytes for e in entries if e.tenant == t) for t in TENANTS}
        self.givers = {entry.tenant for entry in evictable}
        self.shares = shares

    def over(self, tenant: str, wanted: int) -> dict[str, int]:
        present = {each for each in TENANTS if self.bytes_of[each]} | {tenant}
        return {
            each: self.bytes_of[each] + wanted * (each == tenant) - self.shares.own_bytes(each, present)
            for each in self.givers
        }

    def may_give(self, tenant: str, wanted: int, *, is_urgent: bool) -> set[str | None]:
        """Several where they are over by the same."""
        over = self.over(tenant, wanted)
        if over.get(tenant, 0) > 0:
            return {tenant}
        most = max(over.values(), default=0)
        if over and most <= 0 and not is_urgent:
            return {tenant if tenant in over else None}
        return {each for each in over if over[each] == most} or {None}


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([{}, {"a": 0.4}, {"a": 0.2, "b": 0.3, "z": 0.1}]))
def test_who_gives(seed: int, parts: dict[str, float]) -> None:
    rng = random.Random(seed)
    memory = TierMemory(Shares(200), Lru().make_order)
    memory.set_shares(parts)
    shares = Shares(200, {tenant: int(part * 200) for tenant, part in parts.items()})
    entries: list[Entry] = []
    evictable: list[Entry] = []
    for number in range(60):
        tenant, size = rng.choice(TENANTS), rng.randint(1, 9)
        move = rng.random()
        if move < 0.6:
            entry = Entry(bytes([number]) * 32, None, tenant, size, 1.0, (), float(number))
            entries.append(entry)
            memory.hold(entry)
            if rng.random() < 0.7:
                evictable.append(entry)
                memory.may_go(entry, float(number))
        elif move < 0.9 and entries:
            entry = entries.pop(rng.randrange(len(entries)))
            evictable = [each for each in evictable if each is not entry]
            memory.let_go(entry)
        elif evictable:
            memory.discard(evictable.pop(rng.randrange(len(evictable))))
        is_urgent = rng.random() < 0.5
        asker = rng.choice(TENANTS)
        victim = memory.victim(asker, size, float(number), is_urgent=is_urgent)
        giver = None if victim is None else victim.tenant
        present = {entry.tenant for entry in entries}
        if present == {asker} and asker in {entry.tenant for entry in evictable}:
            assert giver == asker  # who is alone has no share to keep
        else:
            assert giver in Plain(shares, entries, evictable).may_give(asker, size, is_urgent=is_urgent)


@pytest.mark.parametrize("num_tenants", [10, 1000])
def test_many_tenants_are_not_looked_at_each_time(num_tenants: int) -> None:
    """As many of them are asked about as have changed."""
    bytes_of = {f"t{number}": number for number in range(num_tenants)}
    asked: list[str] = []

    def counts(tenant: str) -> bool:
        asked.append(tenant)
        return True

    fullest = Fullest(bytes_of, counts)
    fullest.note_all()
    assert fullest.tenant() == f"t{num_tenants - 1}"
    asked.clear()
    for number in range(100):
        bytes_of["t0"] = 10_000 - number
        fullest.note("t0")
        assert fullest.tenant() == "t0"
    assert len(asked) == 100


def test_what_is_stale_does_not_pile_up() -> None:
    bytes_of = {"a": 1, "b": 0}
    fullest = Fullest(bytes_of, lambda _: True)
    for number in range(1000):
        bytes_of["b"] = -number  # never comes up
        fullest.note("a")
        fullest.note("b")
        assert fullest.tenant() == "a"
    assert len(fullest._heap) < 100
