"""The KV prefix cache of an instance: blocks of sequences that ended or run, for those that begin alike.

    waits      look      how much there is now, as often as one asks
    starts     take      the whole blocks of its prefix are shared; take_tail copies the begun one after them
    runs       store     its own blocks, as they fill: of the prompt and of the answer
    ends       leave     the begun block too; all of them stay until others need the room

Blocks that nobody uses are room: `make_room` has them. A sequence writes only into blocks that it alone
holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from core.cache.book import CacheBook
from core.cache.chain import GRANULE_TOKENS
from core.cache.entry import Entry, Tier
from core.cache.policies import POLICIES
from core.cache.tails import tail_key
from core.clock import Clock, MonotonicClock
from core.sequence import SequenceSpec
from kv_transfer.blocks import BlockAllocator, OutOfBlocks
from stage_servers.cache.block_moves import BlockMoves
from stage_servers.cache.prefix import Prefix
from stage_servers.cache.sequence_keys import SequenceKeys
from stage_servers.cache.settings import CacheSettings
from stage_servers.cache.step_seconds import StepSeconds

if TYPE_CHECKING:
    import torch

Told = Callable[[Sequence[bytes], Sequence[bytes]], None]


class KvCache:
    """Used on the engine thread, but for what only asks.

    `kv` is the pool [planes, blocks, block_tokens, elements]; `blocks` says who holds what of it. `on_change`
    is told which keys came to be kept and which are kept no more. Raises ValueError for blocks that are not
    whole granules of the hash chain: see `can_cache`.
    """

    def __init__(
        self,
        kv: torch.Tensor,
        blocks: BlockAllocator,
        model_fingerprint: str,
        settings: CacheSettings,
        *,
        on_change: Told = lambda stored, dropped: None,  # noqa: ARG005
        clock: Clock | None = None,
    ) -> None:
        _, num_blocks, self.block_tokens, _ = kv.shape
        if not can_cache(self.block_tokens):
            raise ValueError(f"block_tokens: {self.block_tokens} are not whole granules of {GRANULE_TOKENS}")
        self.block_bytes = kv.nbytes // num_blocks
        self.seconds = StepSeconds()
        self.num_lookups = 0
        self.num_pulled = 0  # blocks that came from other instances' caches
        self.capacity_bytes = num_blocks * self.block_bytes
        self.host_capacity_bytes = settings.host_bytes // self.block_bytes * self.block_bytes
        self.book = CacheBook(
            POLICIES[settings.policy](self.block_tokens),
            self.capacity_bytes,
            self.host_capacity_bytes,
            ttl_s=settings.ttl_s,
        )
        self._blocks = blocks
        self._fingerprint = model_fingerprint
        self._moves = BlockMoves(kv, blocks, self.host_capacity_bytes // self.block_bytes)
        self._on_change = on_change
        self._clock = clock or MonotonicClock()
        self._wanted_elsewhere = 0  # blocks that others than the engine wait for

    # -- what can be asked

    @property
    def num_blocks(self) -> int:
        """Of the pool, that the cache holds on to. Any thread."""
        return self.book.used_bytes(Tier.DEVICE) // self.block_bytes

    @property
    def num_unused(self) -> int:
        """Of these, that are room. Any thread."""
        return self.book.unused_bytes(Tier.DEVICE) // self.block_bytes

    def look(self, prefix: Prefix, tokens: Sequence[int]) -> int:
        """How many leading tokens are here now for one that waits; at least the last is to be computed."""
        keys, found = self._prompt_keys(prefix, tokens), prefix.found
        if found and self.match([found[-1].key]) != found[-1:]:
            found.clear()  # the end of what was there is gone, maybe more
        number = len(found)
        if self.match(keys[number : number + 1]):
            found += self.match(keys[number:])
        return len(found) * self.block_tokens

    # -- what sequences do

    def begin(self, spec: SequenceSpec) -> Prefix | None:
        """For a sequence that comes; None: it is not to be cached."""
        if spec.cache is None:
            return None
        return Prefix(SequenceKeys(spec, self._fingerprint, self.block_tokens), spec.cache.tenant)

    def take(self, prefix: Prefix, tokens: Sequence[int]) -> list[int]:
        """The blocks of the longest prefix that is here; the sequence shares them until `leave`."""
        self.expire()
        self.look(prefix, tokens)
        keys, found = self._prompt_keys(prefix, tokens), prefix.found
        prefix.kind = self.book.kind_of(keys, len(found))
        prefix.entries, prefix.found = self.hold(found, prefix.tenant), []
        self.book.note_hits(prefix.entries, prefix.kind, self._clock.now_s())
        self.num_lookups += 1
        blocks = [entry.blocks[0] for entry in prefix.entries]
        self._blocks.share(blocks)
        return blocks

    def take_tail(self, prefix: Prefix, tokens: Sequence[int], block: int) -> int:
        """Copies what is there of a begun block after the taken ones into the sequence's own `block`; returns
        how many tokens that are.
        """
        if not prefix.entries:
            return 0
        first = len(prefix.entries) * self.block_tokens
        units = prefix.keys.tail(tokens, first, min(first + self.block_tokens, len(tokens) - 1))
        now_s = self._clock.now_s()
        found = self.book.take_tail(prefix.entries[-1], units, now_s)
        if found is None:
            return 0
        entry, num_tokens = found
        self._moves.copy(entry, num_tokens, block)
        self.book.release([entry], now_s)
        return num_tokens

    def store(self, prefix: Prefix, tokens: Sequence[int], blocks: Sequence[int], num_computed: int) -> None:
        """Keeps the whole blocks of the first `num_computed` tokens that the cache does not know of yet."""
        self._store_until(prefix, tokens, blocks, num_computed)
        self.settle()

    def arrive(self, prefix: Prefix, tokens: Sequence[int], blocks: list[int], num_computed: int) -> None:
        """As `store`, for blocks that came from elsewhere and that nobody else reads yet: those that are here
        already change places with these, which are freed.
        """
        self._store_until(prefix, tokens, blocks, num_computed)
        for number, entry in enumerate(prefix.entries):
            mine, (known,) = blocks[number], entry.blocks
            if mine != known:
                self._blocks.share([known])
                blocks[number] = known
                self._blocks.release([mine])
        self.settle()

    def leave(self, prefix: Prefix, tokens: Sequence[int], blocks: Sequence[int], num_computed: int) -> None:
        """The sequence gives its KV up, and releases its blocks after this; others may go on from it."""
        if num_computed:
            self._store_until(prefix, tokens, blocks, num_computed)
            self._store_tail(prefix, tokens, blocks, num_computed)
        self.book.release(prefix.entries, self._clock.now_s())
        prefix.entries, prefix.found = [], []
        self.settle()

    def spoil(self, prefix: Prefix) -> None:
        """What the sequence computed or took is wrong: nobody shall find it."""
        self.book.spoil(prefix.entries, self._clock.now_s())
        self.book.release(prefix.entries, self._clock.now_s())
        prefix.entries = []
        self.settle()

    # -- what the owner of the pool does

    def make_room(self, num_blocks: int, tenant: str = "") -> bool:
        """Sheds what nobody uses until so many blocks are free, for what the tenant runs; False if they are
        not. What was shed stays shed.
        """
        missing = num_blocks - self._blocks.num_free
        if missing > 0:
            self.book.shed(missing * self.block_bytes, tenant, self._clock.now_s())
            self.settle()
        return self._blocks.num_free >= num_blocks

    def make_room_elsewhere(self, num_blocks: int) -> None:
        """Others than the engine wait for so many blocks: now, or as soon as sequences let go of entries."""
        self._wanted_elsewhere = num_blocks
        self.serve_elsewhere()

    def serve_elsewhere(self) -> None:
        """Sheds for those who wait, if any; who gives up sequences' blocks calls this after it."""
        if self._wanted_elsewhere and self.make_room(self._wanted_elsewhere):
            self._wanted_elsewhere = 0

    def expire(self) -> None:
        """Drops what went unused for too long."""
        self.book.expire(self._clock.now_s())
        self.settle()

    def flush(self, tenant: str | None = None) -> int:
        """Nobody finds any more what is here, or what is the tenant's; returns how many entries that were."""
        number = self.book.flush(self._clock.now_s(), tenant)
        self.settle()
        return number

    def check_integrity(self, held: Sequence[Entry]) -> None:
        """Raises AssertionError if book and pool disagree. `held`: entries that sequences use."""
        if not any(entry.is_flushed for entry in held):
            self.book.check_integrity()
            _equal(
                "blocks of the host", self._moves.host.num_blocks - self._moves.host.num_free, self._on_host
            )
        for entry in self.book:
            (block,) = entry.blocks
            if entry.tier is Tier.DEVICE and self._blocks.references(block) < 1:
                raise AssertionError(f"block {block} of the cache is free")
            if entry.tier is Tier.DEVICE and not entry.refs and self._blocks.references(block) != 1:
                raise AssertionError(f"block {block} is held by others than the cache, which calls it room")

    # -- what this folder builds on

    def hold(self, found: Sequence[Entry], tenant: str = "") -> list[Entry]:
        """Uses these, all from the first block on, and brings them to the device as far as there is room."""
        self.book.hold(found)
        reserved = self._reserve(sum(entry.tier is Tier.HOST for entry in found), tenant)
        held = self.book.promote(found, self._clock.now_s(), len(reserved))
        self.settle(reserved)
        if reserved:
            self._blocks.release(reserved)
        return held

    def settle(self, reserved: list[int] | None = None) -> None:
        """Does what the book decided; `reserved`: blocks for what it brings to the device."""
        changes = self.book.drain()
        if changes.moves:
            self._moves.carry_out(changes.moves, [] if reserved is None else reserved)
        if changes.stored or changes.dropped:
            self._on_change(changes.stored, changes.dropped)

    def match(self, keys: Sequence[bytes]) -> list[Entry]:
        """The entries of the leading keys, in either tier; changes nothing."""
        return self.book.match(keys, self._clock.now_s())

    def let_go(self, held: Sequence[Entry], blocks: Sequence[int] = ()) -> None:
        """The end of `hold`, and of whoever held these blocks."""
        self.book.release(held, self._clock.now_s())
        self.settle()
        if blocks:
            self._blocks.release(blocks)
        self.serve_elsewhere()

    def put(self, prefix: Prefix, key: bytes, block: int) -> bool:
        """Keeps the next block of a prefix whose entries before it the caller uses; False if it cannot be."""
        number = len(prefix.entries)
        entry = self.book.store(
            key,
            prefix.entries[-1] if prefix.entries else None,
            (block,),
            self._clock.now_s(),
            tenant=prefix.tenant,
            size_bytes=self.block_bytes,
            seconds=self.seconds.of(self.block_tokens, number * self.block_tokens),
            kind=prefix.kind,
        )
        if entry is None:
            return False
        prefix.entries.append(entry)
        if entry.blocks == (block,):
            self._blocks.share([block])
        return True

    # -- how

    @property
    def _on_host(self) -> int:
        return sum(entry.tier is Tier.HOST for entry in self.book)

    def _prompt_keys(self, prefix: Prefix, tokens: Sequence[int]) -> list[bytes]:
        return prefix.keys.of(tokens, len(tokens) - 1)

    def _reserve(self, num_blocks: int, tenant: str) -> list[int]:
        """As many blocks as can be had."""
        if not num_blocks:
            return []
        self.make_room(num_blocks, tenant)
        try:
            return self._blocks.allocate(min(num_blocks, self._blocks.num_free))
        except OutOfBlocks:  # a peer's lease was faster
            return []

    def _store_until(
        self, prefix: Prefix, tokens: Sequence[int], blocks: Sequence[int], num_computed: int
    ) -> None:
        keys = prefix.keys.of(tokens, num_computed)
        for number in range(len(prefix.entries), len(keys)):
            if not self.put(prefix, keys[number], blocks[number]):
                return

    def _store_tail(
        self, prefix: Prefix, tokens: Sequence[int], blocks: Sequence[int], num_computed: int
    ) -> None:
        number = num_computed // self.block_tokens
        first = number * self.block_tokens
        units = prefix.keys.tail(tokens, first, num_computed)
        if not units or not number or len(prefix.entries) != number:
            return
        parent, now_s = prefix.entries[-1], self._clock.now_s()
        entry = self.book.store(
            tail_key(parent.key, units),
            parent,
            (blocks[number],),
            now_s,
            tenant=prefix.tenant,
            size_bytes=self.block_bytes,
            seconds=self.seconds.of(len(units), first),
            kind=prefix.kind,
            tail=units,
        )
        if entry is None:
            return
        if entry.blocks == (blocks[number],):
            self._blocks.share(entry.blocks)
        self.book.release([entry], now_s)


def can_cache(block_tokens: int) -> bool:
    """Whether a pool's blocks have keys."""
    return block_tokens >= GRANULE_TOKENS and block_tokens % GRANULE_TOKENS == 0


def _equal(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise AssertionError(f"{what}: {found}, should be {expected}")
