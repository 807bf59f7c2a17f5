"""Embeddings that an instance keeps: entries over its embedding pool, and copies in RAM under it.

    encoded here ────┐                            ┌──► sequences that are prefilled here
    sent by a peer ──┴──► blocks of the pool ─────┴──► peers that prefill
                             │        ▲
                      demote ▼        │ promote
                          tensors in RAM

What nobody uses is room: it goes when the pool is short.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from core.cache.book import CacheBook
from core.cache.entry import Entry, Tier
from core.cache.keys import embedding_key
from core.cache.moves import Move, MoveKind
from core.cache.policies import POLICIES
from core.clock import Clock, MonotonicClock
from core.sequence import CacheUse, MediaSpan
from elasticmm.v1 import stage_control_pb2
from kv_transfer.pool import Pool
from stage_servers.cache.counters import book_counters
from stage_servers.cache.held import HeldEmbedding
from stage_servers.cache.host_store import HostStore
from stage_servers.cache.settings import CacheSettings

if TYPE_CHECKING:
    import torch

_KEY_TOKENS = 256  # a picture's, about
_SECONDS_PER_TOKEN = 1e-3  # to encode, until something was encoded here


class KeyListener(Protocol):
    """Told on the event loop, after each change, which keys came to be kept and which are kept no more."""

    def note(self, stored: Sequence[bytes], dropped: Sequence[bytes]) -> None: ...


class EmbeddingCache:
    """Used on the event loop, on which the pool's blocks are allocated, too.

    Whoever gets a HeldEmbedding uses the entry until it lets go of it. `settings` None: nothing is kept.
    """

    def __init__(
        self,
        pool: Pool,
        listener: KeyListener,
        settings: CacheSettings | None,
        *,
        clock: Clock | None = None,
    ) -> None:
        """Without `settings` nothing has a key, so nothing is kept."""
        self._is_on = settings is not None
        settings = settings or CacheSettings()
        self._pool = pool
        self._listener = listener
        self._clock = clock or MonotonicClock()
        self._block_bytes = pool.layout.pool_bytes(1)
        self._capacity_bytes = pool.num_blocks * self._block_bytes
        self._host_capacity_bytes = settings.host_bytes
        self._book = CacheBook(
            POLICIES[settings.policy](_KEY_TOKENS),
            self._capacity_bytes,
            settings.host_bytes,
            ttl_s=settings.ttl_s,
        )
        self._host = HostStore(pool)
        self._lookups = 0
        self._refused = 0  # by the pool, whose blocks others hold
        self._used_blocks = 0  # of entries in use
        self._reserved: list[int] = []  # for the entry that is promoted
        self._wanted_blocks = 0  # that somebody waits for, free at a time
        self._measured_s, self._measured_tokens = 0.0, 0
        pool.blocks.call_when_short(self._pool_is_short)

    # -- what can be asked

    def key_of(self, use: CacheUse | None, span: MediaSpan) -> bytes | None:
        """What the item's embedding is known by; None if nothing of it is kept."""
        if use is None or not span.identity or not self._is_on:
            return None
        return embedding_key(self._pool.layout.model_fingerprint, use.salt, span.identity)

    @property
    def keys(self) -> list[bytes]:
        """Of all that is kept."""
        return [entry.key for entry in self._book]

    @property
    def num_blocks(self) -> int:
        """Of the pool, that entries lie in."""
        return self._book.used_bytes(Tier.DEVICE) // self._block_bytes

    @property
    def num_idle_blocks(self) -> int:
        """Of these, that are room."""
        return self.num_blocks - self._used_blocks

    def counters(self) -> stage_control_pb2.CacheCounters:
        return book_counters(
            stage_control_pb2.CACHE_POOL_EMBEDDING,
            self._book,
            device_capacity_bytes=self._capacity_bytes,
            host_capacity_bytes=self._host_capacity_bytes,
            lookups=self._lookups,
            refused=self._refused,
        )

    # -- what stages do

    def find(self, key: bytes, num_tokens: int) -> HeldEmbedding | None:
        """The embedding, on the device, if it is kept and, where it lies in RAM, the pool has room."""
        self._lookups += 1
        now_s = self._clock.now_s()
        if not self._reserve_for(key, now_s):
            return None
        entries, _ = self._book.take([key], now_s)
        self._carry_out()
        self._pool.blocks.release(self._reserved)  # if it was dropped to make this room
        self._reserved = []
        return self._hold(entries[0], num_tokens) if entries else None

    def keep(self, key: bytes, tenant: str, embedding: torch.Tensor, seconds: float) -> HeldEmbedding | None:
        """Copies what was encoded here, [num_tokens, width], in so many seconds, into the pool. None: no room
        is to be had within the tenant's share.
        """
        num_tokens = len(embedding)
        self._measured_s += seconds
        self._measured_tokens += num_tokens
        blocks = self._take_room(self._pool.blocks_for(num_tokens), tenant)
        if blocks is None:
            self._refused += 1
            return None
        self._pool.fill(blocks, embedding)
        return self._store(key, tenant, blocks, num_tokens, seconds)

    def adopt(self, key: bytes, tenant: str, blocks: Sequence[int], num_tokens: int) -> HeldEmbedding:
        """Takes over blocks in which a peer's embedding has arrived, whether it can be kept or not."""
        pace_s = self._measured_s / self._measured_tokens if self._measured_tokens else _SECONDS_PER_TOKEN
        return self._store(key, tenant, blocks, num_tokens, num_tokens * pace_s)

    def flush(self, tenant: str | None = None) -> int:
        """Nobody finds any more what is kept, of one tenant or of all; returns how many entries these are."""
        flushed = self._book.flush(self._clock.now_s(), tenant)
        self._carry_out()
        return flushed

    def set_shares(self, parts: Mapping[str, float]) -> None:
        """Tenants' own parts of each tier, 0 to 1, from now on. Raises ValueError if they are more than 1."""
        self._book.set_shares(parts)

    def tidy(self) -> None:
        """Drops what went unused for too long; to be called now and then."""
        self._book.expire(self._clock.now_s())
        self._carry_out()

    def check_idle(self) -> None:
        """Raises AssertionError if an entry is in use, or books and blocks disagree."""
        if self._used_blocks:
            raise AssertionError(f"{self._used_blocks} blocks of kept embeddings are in use")
        self._book.check_integrity()
        for entry in self._book:
            if entry.tier is Tier.DEVICE and any(self._pool.blocks.references(b) != 1 for b in entry.blocks):
                raise AssertionError(f"blocks {entry.blocks} of a kept embedding are held by others, too")
        if len(self._host) != sum(entry.tier is Tier.HOST for entry in self._book):
            raise AssertionError(f"{len(self._host)} embeddings lie in RAM, not as the book says")

    # -- how

    def _store(
        self, key: bytes, tenant: str, blocks: Sequence[int], num_tokens: int, seconds: float
    ) -> HeldEmbedding:
        now_s, own = self._clock.now_s(), tuple(blocks)
        size_bytes = len(own) * self._block_bytes
        entry = self._book.store(key, None, own, now_s, tenant=tenant, size_bytes=size_bytes, seconds=seconds)
        self._carry_out()
        if entry is None:
            view = self._pool.read_tokens(own, num_tokens)
            return HeldEmbedding(view, lambda: self._pool.blocks.release(own), own)
        if entry.blocks != own:  # it is known, and the bytes are the same
            self._pool.blocks.release(own)
        return self._hold(entry, num_tokens)

    def _hold(self, entry: Entry, num_tokens: int) -> HeldEmbedding:
        """Of an entry that is in use once more."""
        if entry.refs == 1:
            self._used_blocks += len(entry.blocks)
        view = self._pool.read_tokens(entry.blocks, num_tokens)
        return HeldEmbedding(view, lambda: self._release(entry), entry.blocks)

    def _release(self, entry: Entry) -> None:
        num_blocks = len(entry.blocks)
        self._book.release([entry], self._clock.now_s())
        if not entry.refs:
            self._used_blocks -= num_blocks
        self._carry_out()
        if self._wanted_blocks and not entry.refs:
            self._pool_is_short(self._wanted_blocks)

    def _reserve_for(self, key: bytes, now_s: float) -> bool:
        """Takes blocks for an entry that has to be promoted; False if there are none."""
        found = self._book.match([key], now_s)
        if found and found[0].tier is Tier.HOST:
            blocks = self._take_room(found[0].size_bytes // self._block_bytes, found[0].tenant)
            self._reserved = blocks or []
            return blocks is not None
        return True

    def _take_room(self, num_blocks: int, tenant: str) -> list[int] | None:
        """For what could be done without: others keep their shares."""
        blocks = self._pool.blocks
        self._shed(num_blocks - blocks.num_free, tenant, is_urgent=False)
        return blocks.allocate(num_blocks) if num_blocks <= blocks.num_free else None

    def _pool_is_short(self, wanted_blocks: int) -> None:
        """Of what requests need that run: no share is kept. Who still waits is remembered."""
        self._wanted_blocks = 0  # releasing blocks may lead here
        blocks = self._pool.blocks
        self._shed(wanted_blocks - blocks.num_free, "", is_urgent=True)
        self._wanted_blocks = wanted_blocks if blocks.num_free < wanted_blocks else 0

    def _shed(self, num_blocks: int, tenant: str, *, is_urgent: bool) -> None:
        if num_blocks > 0:
            wanted_bytes = num_blocks * self._block_bytes
            self._book.shed(wanted_bytes, tenant, self._clock.now_s(), is_urgent=is_urgent)
            self._carry_out()

    def _carry_out(self) -> None:
        """What the book decided."""
        changes = self._book.drain()
        for move in changes.moves:
            self._move(move)
        if changes.stored or changes.dropped:
            self._listener.note(changes.stored, changes.dropped)

    def _move(self, move: Move) -> None:
        entry = move.entry
        if move.kind is MoveKind.PROMOTE:
            self._host.read(move.blocks, self._reserved)
            entry.blocks, self._reserved = tuple(self._reserved), []
        elif move.kind is MoveKind.DEMOTE:
            entry.blocks = self._host.write(move.blocks)
        if move.tier is Tier.HOST:
            self._host.drop(move.blocks)
        else:
            self._pool.blocks.release(move.blocks)
