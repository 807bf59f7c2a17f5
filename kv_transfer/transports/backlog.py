"""What was pushed of one transfer and is not yet written: bounded, whatever the speeds."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from kv_transfer.layout import PoolLayout
from kv_transfer.runs import BlockTable
from kv_transfer.source import Fence

LITTLE_BYTES = 512 << 10  # sooner copied than a thread wakes up: writers may leave it to the commit


@dataclass(frozen=True, slots=True)
class Batch:
    """The same tokens of consecutive planes, to be read from the source blocks of `source`."""

    planes: range
    first_token: int
    num_tokens: int
    source: BlockTable
    fence: Fence | None

    @property
    def tokens(self) -> range:
        return range(self.first_token, self.first_token + self.num_tokens)


class Backlog:
    """Two marks per plane: tokens pushed, tokens taken by the writer.

    Pushes name memory, they carry none, so a slow writer finds more tokens and
    more planes to take at once instead of a longer queue. `push` is called in
    the engine thread, `take` by one writer.
    """

    def __init__(
        self, layout: PoolLayout, num_tokens: int, token_bytes: int | None = None, *, skip_tokens: int = 0
    ) -> None:
        """`layout` is that of the source; `token_bytes` are moved per token and plane (None: all it has).

        The lease's first token is not the first of the source blocks, but the one after `skip_tokens`.
        """
        self.num_tokens = num_tokens
        self._skip_tokens = skip_tokens
        self._layout = layout
        self._token_bytes = layout.token_bytes if token_bytes is None else token_bytes
        self._pushed = [0] * layout.num_planes
        self._taken = [0] * layout.num_planes
        self._waiting_tokens = 0  # pushed and not taken, summed over planes
        self._source_blocks: tuple[int, ...] = ()
        self._table: BlockTable | None = None  # of the source blocks, made when they are read
        self._fence: Fence | None = None
        self._lock = threading.Lock()

    def push(
        self,
        first_token: int,
        num_tokens: int,
        planes: range,
        source_blocks: Sequence[int],
        fence: Fence | None,
    ) -> None:
        """Tokens of some planes are ready. Tokens that were pushed before are written again.

        `source_blocks` are the sequence's blocks from its first token on. Raises
        ValueError where tokens would be left out, or do not fit the lease.
        """
        end = first_token + num_tokens
        if end + self._skip_tokens > len(source_blocks) * self._layout.block_tokens:
            raise ValueError(f"{len(source_blocks)} source_blocks do not hold tokens up to {end}")
        if num_tokens < 1 or first_token < 0 or end > self.num_tokens:
            raise ValueError(
                f"tokens {first_token} to {end} are not within the {self.num_tokens} of the lease"
            )
        if planes.step != 1 or not 0 <= planes.start < planes.stop <= len(self._pushed):
            raise ValueError(f"{planes} is not within {len(self._pushed)} planes")
        with self._lock:
            some = slice(planes.start, planes.stop)
            pushed, taken = self._pushed[some], self._taken[some]
            if first_token > min(pushed):
                raise ValueError(f"tokens before {first_token} were not pushed for all of {planes}")
            # Without max and min: calls for every plane would double what a push costs.
            now_pushed = [end if end > mark else mark for mark in pushed]
            now_taken = [first_token if first_token < mark else mark for mark in taken]
            self._pushed[some], self._taken[some] = now_pushed, now_taken
            self._waiting_tokens += sum(now_pushed) - sum(pushed) + sum(taken) - sum(now_taken)
            self._fence = fence
            blocks = tuple(source_blocks)  # the caller's list may change
            if blocks != self._source_blocks:
                self._source_blocks = blocks
                self._table = None

    def take(self, max_bytes: int) -> Batch | None:
        """The next tokens to write, at least one token and about `max_bytes` at most; None if none wait."""
        with self._lock:
            if not self._waiting_tokens:
                return None
            taken, pushed = self._taken, self._pushed
            first = 0
            while taken[first] == pushed[first]:
                first += 1
            start, end = taken[first], pushed[first]
            count, token_bytes = end - start, self._token_bytes
            most = min(len(pushed), first + max(1, max_bytes // (count * token_bytes)))
            stop = first + 1
            while stop < most and taken[stop] == start and pushed[stop] == end:
                stop += 1
            planes = range(first, stop)
            if len(planes) == 1:
                count = max(1, min(count, max_bytes // token_bytes))
            self._taken[planes.start : planes.stop] = [start + count] * len(planes)
            self._waiting_tokens -= count * len(planes)
            return Batch(planes, start, count, self._block_table(), self._fence)

    def whole(self, num_tokens: int) -> Batch:
        """The first `num_tokens` tokens of all planes as they were pushed last, taken or not."""
        with self._lock:
            return Batch(range(len(self._pushed)), 0, num_tokens, self._block_table(), self._fence)

    @property
    def waiting_bytes(self) -> int:
        """Pushed and not taken."""
        return self._waiting_tokens * self._token_bytes

    @property
    def has_work(self) -> bool:
        return self._waiting_tokens > 0

    def _block_table(self) -> BlockTable:
        if self._table is None:
            self._table = BlockTable(self._source_blocks, self._layout.block_tokens, self._skip_tokens)
        return self._table

    def missing(self, num_tokens: int) -> str:
        """What keeps the first `num_tokens` tokens from being complete, in words; empty if nothing does."""
        short = [plane for plane, end in enumerate(self._pushed) if end < num_tokens]
        if not short:
            return ""
        return (
            f"{len(short)} planes lack tokens, plane {short[0]} has {self._pushed[short[0]]} of {num_tokens}"
        )
