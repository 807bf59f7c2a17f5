"""The book against a slow and obvious one, through any order of what sequences and owners do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from core.cache.book import CacheBook
from core.cache.entry import Entry, Tier
from core.cache.lru import Lru
from core.cache.moves import MoveKind
from core.cache.reuse import ReuseHistory
from core.cache.seconds_saved import SecondsSaved

PATHS = st.lists(st.integers(0, 2), min_size=1, max_size=5)
TENANTS = st.sampled_from(["a", "b", "c"])


def keys_of(tenant: str, path: list[int]) -> list[bytes]:
    """Of each leading part of the path, within the tenant."""
    return [f"{tenant}{path[:end]}".encode().ljust(32, b"\0") for end in range(1, len(path) + 1)]


@dataclass
class Memory:
    """Both tiers' blocks, as the owner has them: which key's content lies in which."""

    lies: dict[tuple[Tier, int], bytes] = field(default_factory=dict)
    next_block: int = 0

    def fill(self, tier: Tier, key: bytes) -> int:
        self.next_block += 1
        self.lies[tier, self.next_block] = key
        return self.next_block


class BookMachine(RuleBasedStateMachine):
    DEVICE_BYTES, HOST_BYTES, TTL_S = 12, 9, 50.0

    def __init__(self) -> None:
        super().__init__()
        self.memory, self.now_s = Memory(), 0.0
        self.held: list[list[Entry]] = []
        self.reported: set[bytes] = set()
        self.sizes: dict[bytes, int] = {}

    @initialize(is_lru=st.booleans(), has_host=st.booleans(), share=st.sampled_from([0, 4]))
    def begin(self, is_lru: bool, has_host: bool, share: int) -> None:
        policy = Lru() if is_lru else SecondsSaved(16, ReuseHistory(10))
        self.share = share
        self.book = CacheBook(
            policy,
            self.DEVICE_BYTES,
            self.HOST_BYTES * has_host,
            ttl_s=self.TTL_S,
            device_shares={"a": share},
        )

    @rule(tenant=TENANTS, path=PATHS, size=st.integers(1, 3), seconds=st.floats(0.1, 2))
    def run_sequence(self, tenant: str, path: list[int], size: int, seconds: float) -> None:
        keys = keys_of(tenant, path)
        self.book.expire(self.now_s)
        own_bytes, num_there = self.book.used_bytes(Tier.DEVICE, "a"), self.num_on_device(keys)
        entries, kind = self.book.take(keys, self.now_s)
        assert [entry.key for entry in entries] == keys[: len(entries)]
        assert len(entries) >= num_there
        self.carry_out()
        for key in keys[len(entries) :]:
            parent = entries[-1] if entries else None
            block, num_bytes = self.memory.fill(Tier.DEVICE, key), self.sizes.setdefault(key, size)
            entry = self.book.store(
                key,
                parent,
                (block,),
                self.now_s,
                tenant=tenant,
                size_bytes=num_bytes,
                seconds=seconds,
                kind=kind,
            )
            if entry is None:
                del self.memory.lies[Tier.DEVICE, block]
                self.carry_out()
                break
            assert entry.blocks == (block,)  # what was there already was taken
            self.carry_out()
            entries.append(entry)
        self.held.append(entries)
        if tenant != "a":
            whole_entries = 2  # the last byte over the share may be of an entry of three
            assert self.book.used_bytes(Tier.DEVICE, "a") >= min(own_bytes, self.share) - whole_entries

    def num_on_device(self, keys: list[bytes]) -> int:
        there = {entry.key for entry in self.book if entry.tier is Tier.DEVICE}
        return sum(set(keys[: number + 1]) <= there for number in range(len(keys)))

    @precondition(lambda self: self.held)
    @rule(number=st.integers(0, 100))
    def end_sequence(self, number: int) -> None:
        self.book.release(self.held.pop(number % len(self.held)), self.now_s)
        self.carry_out()

    @rule(seconds=st.sampled_from([0.5, 3.0, 60.0]))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    @rule(num_bytes=st.integers(1, 6), tenant=TENANTS)
    def shed(self, num_bytes: int, tenant: str) -> None:
        before = self.book.used_bytes(Tier.DEVICE)
        freed = self.book.shed(num_bytes, tenant, self.now_s)
        assert self.book.used_bytes(Tier.DEVICE) == before - freed
        if freed < num_bytes:
            assert all(entry.refs for entry in self.book if entry.tier is Tier.DEVICE)
        self.carry_out()

    @precondition(lambda self: not self.held)
    @rule(tenant=TENANTS | st.none())
    def flush(self, tenant: str | None) -> None:
        self.book.flush(self.now_s, tenant)
        assert not [entry for entry in self.book if tenant in (None, entry.tenant)]
        self.carry_out()

    def carry_out(self) -> None:
        """Every move finds the content where it says, and room where it goes."""
        changes = self.book.drain()
        for move in changes.moves:
            content = [self.memory.lies.pop((move.tier, block)) for block in move.blocks]
            assert content == [move.entry.key]
            if move.kind is not MoveKind.DROP:
                tier = Tier.HOST if move.kind is MoveKind.DEMOTE else Tier.DEVICE
                move.entry.blocks = (self.memory.fill(tier, move.entry.key),)
            on_host = [key for (tier, _), key in self.memory.lies.items() if tier is Tier.HOST]
            assert sum(self.sizes[key] for key in on_host) <= self.HOST_BYTES
        self.reported = self.reported - {*changes.dropped} | {*changes.stored}

    @invariant()
    def books_fit(self) -> None:
        if not hasattr(self, "book"):
            return
        self.book.check_integrity()
        refs = [entry for entries in self.held for entry in entries]
        assert all(entry.refs == refs.count(entry) for entry in self.book)
        assert set(refs) <= {entry for entry in self.book if entry.tier is Tier.DEVICE}
        assert {entry.key for entry in self.book} == self.reported
        lies = {(entry.tier, block): entry.key for entry in self.book for block in entry.blocks}
        assert lies == self.memory.lies

    def teardown(self) -> None:
        for entries in self.held:
            self.book.release(entries, self.now_s)
        self.carry_out()
        self.book.expire(self.now_s + self.TTL_S)
        self.carry_out()
        assert len(self.book) == 0
        assert not self.memory.lies


TestBookMachine = BookMachine.TestCase
TestBookMachine.settings = settings(max_examples=120, stateful_step_count=40)


@given(st.lists(PATHS, max_size=40), st.integers(1, 12))
def test_lru_keeps_what_the_plainest_lru_of_leaves_keeps(paths: list[list[int]], capacity: int) -> None:
    book, model = CacheBook(Lru(), capacity), dict[bytes, int]()  # when each was used
    for now_s, path in enumerate(paths):
        keys = keys_of("", path)
        entries, _ = book.take(keys, now_s)
        assert len(entries) == sum(set(keys[:end]) <= model.keys() for end in range(1, len(keys) + 1))
        for key in keys[: len(entries)]:
            model[key] = now_s
        for key in keys[len(entries) :]:
            parent = entries[-1] if entries else None
            entry = book.store(key, parent, (), now_s, tenant="", size_bytes=1, seconds=1.0)
            if entry is None:
                break
            entries.append(entry)
            if len(model) == capacity:
                del model[min(leaves(model) - set(keys), key=model.__getitem__)]
            model[key] = now_s
        book.release(entries, now_s)
        assert {entry.key for entry in book} == model.keys()


def leaves(keys: Iterable[bytes]) -> set[bytes]:
    names = {key: key.rstrip(b"\0").rstrip(b"]") for key in keys}
    return {key for key in keys if not any(name.startswith(names[key] + b",") for name in names.values())}
