"""The books of one instance's cache: what is kept, who uses it, what goes when room is short.

    first ──► block ──► block ──► tail         a radix tree: children by the hash of all before them
                   └──► block                  refs: sequences that use an entry, and so all before it

    device   evicted from its leaves on, to the host          closed: no entry without its parent there
    host     evicted from its leaves on, for good             closed with the device: likewise

An embedding is an entry without parent or children. Nothing here touches memory: moves are decided, and
listed for the owner of the memory to carry out.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence

from core.cache.entry import Entry, Tier, Unit
from core.cache.eviction import EvictionPolicy
from core.cache.integrity import check_books
from core.cache.moves import CacheStats, Changes, Move, MoveKind
from core.cache.shares import Shares
from core.cache.tails import TailIndex
from core.cache.tier import TierMemory


class CacheBook:
    """Used on one thread. Entries that `take`, `take_tail` and `store` return are in use by the caller, once
    per mention, until `release`. After any change `drain` tells what to do before the next one.

    `ttl_s`: how long an entry may go unused; None: as long as there is room. `device_shares` and
    `host_shares` name tenants' own bytes; see Shares.
    """

    def __init__(
        self,
        policy: EvictionPolicy,
        device_bytes: int,
        host_bytes: int = 0,
        *,
        ttl_s: float | None = None,
        device_shares: Mapping[str, int] | None = None,
        host_shares: Mapping[str, int] | None = None,
    ) -> None:
        self.stats = CacheStats()
        self._policy = policy
        self._ttl_s = ttl_s
        self._device = TierMemory(Shares(device_bytes, device_shares or {}), policy.make_order)
        self._host = TierMemory(Shares(host_bytes, host_shares or {}), policy.make_order)
        self._tiers = {Tier.DEVICE: self._device, Tier.HOST: self._host}
        self._entries: dict[bytes, Entry] = {}  # parents before children
        self._tails = TailIndex()
        self._unused: OrderedDict[Entry, None] = (
            OrderedDict()
        )  # in order of their last use, children before parents
        self._moves: list[Move] = []
        self._demoted: dict[Entry, int] = {}  # places in the moves
        self._is_there: dict[bytes, bool] = {}  # of keys that changed

    def set_shares(self, parts: Mapping[str, float]) -> None:
        """Tenants' own parts of each tier, 0 to 1, in the place of earlier ones; what is kept goes only when
        room is needed. Raises ValueError if they are more than there is.
        """
        self._device.set_shares(parts)
        self._host.set_shares(parts)

    # -- what can be asked

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def used_bytes(self, tier: Tier, tenant: str | None = None) -> int:
        memory = self._tiers[tier]
        return memory.used_bytes if tenant is None else memory.bytes_of[tenant]

    def unused_bytes(self, tier: Tier) -> int:
        """That nobody uses: on the device, what `shed` could have."""
        return self._tiers[tier].unused_bytes

    def match(self, keys: Sequence[bytes], now_s: float) -> list[Entry]:
        """The entries of the leading keys, as far as they are here, in either tier; changes nothing."""
        found: list[Entry] = []
        for key in keys:
            entry = self._entries.get(key)
            if entry is None or self._is_expired(entry, now_s):
                break
            found.append(entry)
        return found

    # -- what sequences do

    def take(self, keys: Sequence[bytes], now_s: float) -> tuple[list[Entry], int]:
        """The entries of the leading keys, all on the device (promoted if need be, as far as there is room),
        and what kind of user this is, for `store`.

        A caller that needs the output of the last token leaves that token out of its keys.
        """
        self.expire(now_s)
        found = self.match(keys, now_s)
        kind = self.kind_of(keys, len(found))
        self.hold(found)
        taken = self.promote(found, now_s)
        self.note_hits(taken, kind, now_s)
        return taken, kind

    def kind_of(self, keys: Sequence[bytes], num_found: int) -> int:
        """What kind of user asks for these keys and finds so many of them, for `store`."""
        return self._policy.kind_of(keys, num_found)

    def hold(self, entries: Sequence[Entry]) -> None:
        """The caller uses these, with all before each, and has to `release` them. No hit by itself."""
        for entry in entries:
            self._use(entry)

    def promote(self, held: Sequence[Entry], now_s: float, most: int | None = None) -> list[Entry]:
        """Brings what the caller holds to the device, at most so many entries and as far as there is room;
        returns the leading ones that are there, and releases the others.
        """
        num_there = self._promoted(held, len(held) if most is None else most, now_s)
        self.release(held[num_there:], now_s)
        return list(held[:num_there])

    def note_hits(self, entries: Sequence[Entry], kind: int, now_s: float) -> None:
        """These spare the caller their computation."""
        for entry in entries:
            self._note_hit(entry, kind, now_s)

    def take_tail(self, parent: Entry, units: Sequence[Unit], now_s: float) -> tuple[Entry, int] | None:
        """A begun block after `parent`, which the caller uses, and how many of its first tokens are those of
        `units`: copy them into another block from whichever tier it lies in, then release the entry.
        """
        found = self._tails.longest(parent, units)
        if found is None or self._is_expired(found[0], now_s):
            return None
        entry, num_shared = found
        self._use(entry)
        self._note_hit(entry, entry.kind, now_s)
        return entry, num_shared

    def store(
        self,
        key: bytes,
        parent: Entry | None,
        blocks: tuple[int, ...],
        now_s: float,
        *,
        tenant: str,
        size_bytes: int,
        seconds: float,
        kind: int = 0,
        tail: tuple[Unit, ...] = (),
    ) -> Entry | None:
        """Keeps what took `seconds` to compute into `blocks`, which belong to the entry if its `blocks` are
        these; else it is known already and lies elsewhere. None where it cannot be kept: all the room is in
        use or other tenants' own, or its parent was flushed.

        The caller uses `parent`. A tail takes the place of unused ones that it goes on from.
        """
        if parent is not None and parent.is_flushed:
            return None
        entry = self._entries.get(key)
        if entry is None:
            entry = Entry(key, parent, tenant, size_bytes, seconds, blocks, now_s, tail)
            is_kept = self._enter(entry, now_s)
        else:
            self._use(entry)
            is_kept = self._raise(entry, MoveKind.DROP, blocks, now_s)
            if not is_kept:
                self._unuse(entry, now_s)
        if not is_kept:
            self.stats.refused += 1
            return None
        self._policy.note_use(entry, kind, now_s)
        entry.used_s = now_s
        return entry

    def release(self, entries: Sequence[Entry], now_s: float) -> None:
        """The caller uses these, in order of the sequence, once less.

        Raises ValueError for one that nobody uses.
        """
        for entry in reversed(entries):
            if not entry.refs:
                raise ValueError("entries: one is released more often than it was taken")
            self._unuse(entry, now_s)

    # -- what the owner of the memory does

    def shed(self, num_bytes: int, tenant: str, now_s: float, *, is_urgent: bool = True) -> int:
        """Takes so many bytes off the device for the tenant, others' own share last, and only where it is
        urgent; returns how many could be had.
        """
        freed = 0
        while freed < num_bytes:
            entry = self._device.victim(tenant, num_bytes - freed, now_s, is_urgent=is_urgent)
            if entry is None:
                break
            freed += entry.size_bytes
            self._evict(entry, now_s)
        return freed

    def expire(self, now_s: float) -> None:
        """Drops what went unused for too long."""
        while self._unused:
            entry = next(iter(self._unused))
            if not self._is_expired(entry, now_s) or any(entry.num_children):
                return
            self.stats.dropped_by_age += 1
            self._drop(entry, entry.tier, now_s)

    def flush(self, now_s: float, tenant: str | None = None) -> int:
        """Nobody finds any more what is there, or what is the tenant's and what follows on that; what is in
        use goes when it is released. Returns how many entries these are.
        """
        return self._flush(lambda entry: tenant is None or entry.tenant == tenant, now_s)

    def spoil(self, entries: Sequence[Entry], now_s: float) -> int:
        """As `flush`, of these and what follows on them: what they hold is wrong."""
        wrong = set(entries)
        return self._flush(lambda entry: entry in wrong, now_s)

    def drain(self) -> Changes:
        """What was decided since the last call."""
        stored = tuple(key for key, is_there in self._is_there.items() if is_there)
        dropped = tuple(key for key, is_there in self._is_there.items() if not is_there)
        changes = Changes(tuple(self._moves), stored, dropped)
        self._moves.clear()
        self._demoted.clear()
        self._is_there.clear()
        return changes

    def check_integrity(self) -> None:
        """Raises AssertionError if books and entries disagree. Not while flushed entries are in use."""
        check_books(self._entries.values(), self._tiers, self._unused, set(self._tails))

    # -- how

    def _is_expired(self, entry: Entry, now_s: float) -> bool:
        return self._ttl_s is not None and not entry.refs and entry.used_s + self._ttl_s <= now_s

    def _use(self, entry: Entry) -> None:
        entry.refs += 1
        if entry.refs == 1:
            self._unused.pop(entry, None)
            self._tiers[entry.tier].begin_use(entry)

    def _unuse(self, entry: Entry, now_s: float) -> None:
        entry.refs -= 1
        if entry.refs:
            return
        self._tiers[entry.tier].end_use(entry)
        entry.used_s = now_s
        if entry.is_flushed:
            self._drop(entry, entry.tier, now_s)
            return
        self._unused[entry] = None
        self._note_evictable(entry, now_s)

    def _note_evictable(self, entry: Entry, now_s: float) -> None:
        if entry.is_evictable and not entry.is_flushed:
            self._tiers[entry.tier].may_go(entry, now_s)

    def _note_hit(self, entry: Entry, kind: int, now_s: float) -> None:
        self._policy.note_use(entry, kind, now_s)
        entry.used_s = now_s
        self.stats.hits += 1
        self.stats.hit_bytes += entry.size_bytes
        self.stats.seconds_saved += entry.seconds

    def _enter(self, entry: Entry, now_s: float) -> bool:
        """A new entry, in use, on the device; False if there is no room."""
        if not self._make_room(entry, now_s):
            return False
        entry.refs = 1
        self._entries[entry.key] = entry
        self._note(entry, is_there=True)
        self._hold(entry)
        if entry.tail:
            self._tails.add(entry)
            for beginning in self._tails.beginnings(entry):
                if not beginning.refs:
                    self._drop(beginning, beginning.tier, now_s)
        self.stats.stored += 1
        return True

    def _promoted(self, entries: Sequence[Entry], most: int, now_s: float) -> int:
        """How many leading entries, all in use, are on the device once at most so many were brought there."""
        for number, entry in enumerate(entries):
            most -= entry.tier is Tier.HOST
            if most < 0 or not self._raise(entry, MoveKind.PROMOTE, (), now_s):
                return number
        return len(entries)

    def _raise(self, entry: Entry, kind: MoveKind, blocks: tuple[int, ...], now_s: float) -> bool:
        """An entry in use gets blocks of the device where it lies on the host; else nothing happens. False if
        there is no room.
        """
        if entry.tier is Tier.DEVICE:
            return True
        if not self._make_room(entry, now_s):
            return False
        assert entry not in self._demoted, "what the last change asked for was not done"
        self._moves.append(Move(kind, entry, Tier.HOST, entry.blocks))
        self._change_tier(entry, Tier.DEVICE, now_s)
        entry.blocks = blocks
        self.stats.promoted += kind is MoveKind.PROMOTE
        return True

    def _make_room(self, entry: Entry, now_s: float) -> bool:
        """On the device, for one that is to go there."""
        memory, size_bytes = self._device, entry.size_bytes
        if size_bytes > memory.capacity_bytes:
            return False
        while memory.used_bytes + size_bytes > memory.capacity_bytes:
            victim = memory.victim(entry.tenant, size_bytes, now_s, is_urgent=False)
            if victim is None:
                return False
            self._evict(victim, now_s)
        return True

    def _evict(self, entry: Entry, now_s: float) -> None:
        """From the device: to the host, and there what is worth least goes for good, maybe this very one."""
        if not self._host.capacity_bytes:
            self.stats.dropped_for_room += 1
            self._drop(entry, Tier.DEVICE, now_s)
            return
        blocks = entry.blocks
        self._change_tier(entry, Tier.HOST, now_s)
        self._note_evictable(entry, now_s)
        while self._host.used_bytes > self._host.capacity_bytes:
            victim = self._host.victim(entry.tenant, 0, now_s, is_urgent=True)
            assert victim is not None, "the host has no leaf"
            self.stats.dropped_for_room += 1
            self._drop(victim, Tier.DEVICE if victim is entry else Tier.HOST, now_s)
            if victim is entry:
                return
        self._demoted[entry] = len(self._moves)
        self._moves.append(Move(MoveKind.DEMOTE, entry, Tier.DEVICE, blocks))
        entry.blocks = ()
        self.stats.demoted += 1

    def _change_tier(self, entry: Entry, tier: Tier, now_s: float) -> None:
        self._let_go(entry, now_s)
        entry.tier = tier
        self._hold(entry)

    def _hold(self, entry: Entry) -> None:
        self._tiers[entry.tier].hold(entry)
        parent = entry.parent
        if parent is not None:
            parent.num_children[entry.tier] += 1
            if parent.tier is entry.tier:
                self._tiers[parent.tier].discard(parent)

    def _let_go(self, entry: Entry, now_s: float) -> None:
        self._tiers[entry.tier].let_go(entry)
        parent = entry.parent
        if parent is not None:
            parent.num_children[entry.tier] -= 1
            if parent.tier is entry.tier:
                self._note_evictable(parent, now_s)

    def _drop(self, entry: Entry, lies_in: Tier, now_s: float) -> None:
        if not entry.is_flushed:
            self._forget(entry)
        self._unused.pop(entry, None)
        self._let_go(entry, now_s)
        place = self._demoted.pop(entry, None)
        if place is None:
            self._moves.append(Move(MoveKind.DROP, entry, lies_in, entry.blocks))
        else:  # it does not get as far as the host
            self._moves[place] = Move(MoveKind.DROP, entry, Tier.DEVICE, self._moves[place].blocks)
            self.stats.demoted -= 1

    def _forget(self, entry: Entry) -> None:
        del self._entries[entry.key]
        self._note(entry, is_there=False)
        if entry.tail:
            self._tails.remove(entry)

    def _note(self, entry: Entry, *, is_there: bool) -> None:
        if not entry.tail:  # nobody asks for those by their keys
            self._is_there[entry.key] = is_there

    def _flush(self, is_meant: Callable[[Entry], bool], now_s: float) -> int:
        going: dict[Entry, None] = {}
        for entry in self._entries.values():
            if is_meant(entry) or entry.parent in going:
                going[entry] = None
        for entry in reversed(going):
            self._forget(entry)
            entry.is_flushed = True
            if not entry.refs:
                self._drop(entry, entry.tier, now_s)
        self.stats.flushed += len(going)
        return len(going)
