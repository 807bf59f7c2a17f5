"""A prefill whose KV goes to another instance: what is written, what is sent, and the first token.

from the cache    ══ all layers ══╗ once the peer has granted room
layer by layer                    ╚═ 0 ═ 1 ═ 2 ═ … of the first chunk, then of the next
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.sequence import SequenceSpec
from stage_servers.reports import Key

if TYPE_CHECKING:
    from kv_transfer.sender import Outgoing
    from stage_servers.engine.records import TokenOutput


@dataclass(frozen=True, slots=True)
class _Written:
    """Consecutive tokens' KV of some planes, now in this instance's pool."""

    planes: range
    first_token: int
    num_tokens: int
    blocks: list[int]


class HandOver:
    """Joins the engine thread, which writes layers, and the peer's grant, which may come later.

    Layers written before the grant wait here; their blocks stay until release. What comes before the first
    token that is written came from the cache. `num_planes`: of the whole KV.
    """

    def __init__(self, spec: SequenceSpec, num_planes: int) -> None:
        self.spec = spec
        self._num_planes = num_planes
        self._has_begun = False
        self.first_token: Future[TokenOutput] = Future()
        self._outgoing: Outgoing | None = None
        self._waiting: list[_Written] = []
        self._lock = threading.Lock()

    @property
    def key(self) -> Key:
        return self.spec.key

    def layers_written(self, layers: range, first_token: int, num_tokens: int, blocks: list[int]) -> None:
        """Called in the engine thread."""
        if not self._has_begun and first_token:
            self._came(_Written(range(self._num_planes), 0, first_token, blocks))
        self._has_begun = True
        self._came(_Written(range(2 * layers.start, 2 * layers.stop), first_token, num_tokens, blocks))

    def granted(self, outgoing: Outgoing) -> None:
        """The peer gave room: what waited leaves now."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
            for written in waiting:
                _push(outgoing, written)
            self._outgoing = outgoing

    def _came(self, written: _Written) -> None:
        with self._lock:
            if self._outgoing is None:
                self._waiting.append(written)
                return
        _push(self._outgoing, written)


def _push(outgoing: Outgoing, written: _Written) -> None:
    outgoing.push(written.first_token, written.num_tokens, written.planes, written.blocks)
