"""Which streams write when more are ready than should write at once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

_MOST_AT_ONCE = 48
# Who takes longer waits for its client, not for us, and is not counted any more.
_LONGEST_S = 0.02


class Turns:
    """Wakes streams that have something to write: at once while few write, else in order, as others are done.

    Without it a loop that is behind reads one report of each instance, writes all its tokens, and reads the
    next: tokens wait with the instances, and each is a message of its own. With it reports are read while
    streams wait, and what they bring for such a stream goes into its one message.
    """

    def __init__(self, most_at_once: int = _MOST_AT_ONCE, longest_s: float = _LONGEST_S) -> None:
        self._most = most_at_once
        self._longest_s = longest_s
        self._writing: dict[int, float] = {}  # stream: since when, oldest first
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def ask(self, stream: int, wake: Callable[[], None]) -> None:
        """`wake` is called once, when it is the stream's turn; `done` with the same number ends that."""
        if self._waiting or len(self._writing) >= self._most:
            self._waiting.append((stream, wake))
            self._wake()
        else:
            self._begin(stream, wake, asyncio.get_running_loop().time())

    def done(self, stream: int) -> None:
        """Nothing where it is not its turn."""
        if self._writing.pop(stream, None) is not None and self._waiting:
            self._wake()

    def _wake(self) -> None:
        now_s = asyncio.get_running_loop().time()
        if len(self._writing) >= self._most:
            self._forget_slow(now_s)
        while self._waiting and len(self._writing) < self._most:
            self._begin(*self._waiting.popleft(), now_s)
        if self._waiting and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._longest_s, self._look)

    def _begin(self, stream: int, wake: Callable[[], None], now_s: float) -> None:
        self._writing.pop(stream, None)
        self._writing[stream] = now_s
        wake()

    def _forget_slow(self, now_s: float) -> None:
        slow = []
        for stream, since_s in self._writing.items():
            if now_s - since_s < self._longest_s:
                break
            slow.append(stream)
        for stream in slow:
            del self._writing[stream]

    def _look(self) -> None:
        self._timer = None
        if self._waiting:
            self._wake()
