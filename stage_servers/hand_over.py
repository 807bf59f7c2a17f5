"""A prefill whose KV goes to another instance: what is written, what is sent, and the first token."""

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
    """K and V of one layer for consecutive tokens, now in this instance's pool."""

    layer: int
    first_token: int
    num_tokens: int
    blocks: list[int]


class HandOver:
    """Joins the engine thread, which writes layers, and the peer's grant, which may come later.

    Layers written before the grant wait here; their blocks stay until release.
    """

    def __init__(self, spec: SequenceSpec) -> None:
        self.spec = spec
        self.first_token: Future[TokenOutput] = Future()
        self._outgoing: Outgoing | None = None
        self._waiting: list[_Written] = []
        self._lock = threading.Lock()

    @property
    def key(self) -> Key:
        return self.spec.key

    def layer_written(self, layer: int, first_token: int, num_tokens: int, blocks: list[int]) -> None:
        """Called in the engine thread."""
        written = _Written(layer, first_token, num_tokens, blocks)
        with self._lock:
            if self._outgoing is None:
                self._waiting.append(written)
                return
        _push(self._outgoing, written)

    def granted(self, outgoing: Outgoing) -> None:
        """The peer gave room: what waited leaves now."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
            for written in waiting:
                _push(outgoing, written)
            self._outgoing = outgoing


def _push(outgoing: Outgoing, written: _Written) -> None:
    planes = range(2 * written.layer, 2 * written.layer + 2)
    outgoing.push(written.first_token, written.num_tokens, planes, written.blocks)
