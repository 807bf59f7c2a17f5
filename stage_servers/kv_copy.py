"""The copy of a sequence's KV that goes on while the sequence decodes, until it can be frozen."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stage_servers.engine.records import NotDecoding
from stage_servers.reports import Key

if TYPE_CHECKING:
    from kv_transfer.sender import Outgoing
    from stage_servers.engine.engine import Engine
    from stage_servers.engine.records import DecodeState

FEW_TOKENS = 16  # what a round adds, and what is left after it, when a sequence may be frozen
MOST_ROUNDS = 8  # after so many it is frozen with whatever is left: rounds have ceased to shrink


@dataclass(frozen=True, slots=True)
class Frozen:
    """A sequence that stands still, all of whose KV has been pushed."""

    state: DecodeState
    since_ns: int  # on the monotonic clock


class KvCopy:
    """Pushes a sequence's KV in rounds: what is there, then what was added meanwhile, and so on.

    Looks are taken in the engine thread, between two steps.
    """

    def __init__(self, engine: Engine, key: Key, outgoing: Outgoing, num_planes: int) -> None:
        self._engine = engine
        self._key = key
        self._outgoing = outgoing
        self._planes = range(num_planes)
        self._num_pushed = 0
        self._last_push = 0
        self._num_rounds = 0
        self._num_restarts: int | None = None

    def look(self, room_tokens: int) -> Frozen | None:
        """Begins a round where the last one is nearly written; once little is left, freezes and pushes that.

        Raises NotDecoding where the sequence ended, was preempted, or outgrew the lease of `room_tokens`;
        TransferError where the transfer has failed.
        """
        if self._outgoing.error is not None:
            raise self._outgoing.error
        state = self._engine.decode_state(self._key)
        self._check(state, room_tokens)
        if self._outgoing.is_behind:
            return None
        if not self._is_close(state):
            self._push(state)
            return None
        since_ns = time.monotonic_ns()
        state = self._engine.freeze(self._key)
        self._push(state)
        return Frozen(state, since_ns)

    def _is_close(self, state: DecodeState) -> bool:
        """Whether little is left; also the last round must have been short, for its end may be under way."""
        if self._num_rounds in (0, MOST_ROUNDS):
            return self._num_rounds > 0
        return max(self._last_push, state.num_tokens - self._num_pushed) <= FEW_TOKENS

    def _check(self, state: DecodeState, room_tokens: int) -> None:
        if self._num_restarts is None:
            self._num_restarts = state.num_restarts
        if state.num_restarts != self._num_restarts:
            raise NotDecoding("the sequence was preempted while it was copied")
        if state.num_tokens > room_tokens:
            raise NotDecoding(
                f"the copy did not keep up: the sequence outgrew its room of {room_tokens} tokens"
            )

    def _push(self, state: DecodeState) -> None:
        self._last_push = state.num_tokens - self._num_pushed
        self._num_rounds += 1
        if self._last_push:
            self._outgoing.push(self._num_pushed, self._last_push, self._planes, state.block_ids)
            self._num_pushed = state.num_tokens
