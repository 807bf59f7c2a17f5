"""What the coordinator is told of an instance's caches: which keys are kept, and how they do."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from itertools import islice

from elasticmm.v1 import stage_control_pb2
from stage_servers.reports import Reports

_DELAY_S = 0.02  # what changes within it leaves together
_MOST_KEYS = 1024  # of one report: what the coordinator takes in a few milliseconds

Counters = Callable[[], stage_control_pb2.CacheCounters]


class CacheReports:
    """One outbox for the books of all pools.

    `note` may be called in any thread, the rest on the event loop. Only net changes leave, and all that is
    kept whenever a coordinator is new.
    """

    def __init__(self, reports: Reports) -> None:
        self._reports = reports
        self._counters: list[Counters] = []
        self._kept: set[bytes] = set()
        self._changed: dict[bytes, None] = {}  # keys whose being kept is not what was reported
        self._loop: asyncio.AbstractEventLoop | None = None  # None: nobody is there to be told
        self._timer: asyncio.TimerHandle | None = None
        self._is_due = False
        self._lock = threading.Lock()

    def note(self, stored: Sequence[bytes], dropped: Sequence[bytes]) -> None:
        """These keys came to be kept, those are kept no more."""
        with self._lock:
            for key in stored:
                if key not in self._kept:
                    self._kept.add(key)
                    self._toggle(key)
            for key in dropped:
                if key in self._kept:
                    self._kept.remove(key)
                    self._toggle(key)
            self._make_due()

    def add_counters(self, counters: Counters) -> None:
        """Of one pool's cache; asked before every heartbeat."""
        self._counters.append(counters)

    def counters(self) -> list[stage_control_pb2.CacheCounters]:
        return [ask() for ask in self._counters]

    def attach(self) -> None:
        """A coordinator is there that knows of nothing."""
        with self._lock:
            self._loop = asyncio.get_running_loop()
            self._changed = dict.fromkeys(self._kept)
            self._make_due()

    def detach(self) -> None:
        """The coordinator is gone."""
        with self._lock:
            self._loop = None
            self._is_due = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _toggle(self, key: bytes) -> None:
        if key in self._changed:
            del self._changed[key]
        else:
            self._changed[key] = None

    def _make_due(self) -> None:
        if self._changed and self._loop is not None and not self._is_due:
            self._is_due = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: the instance ends
                self._loop.call_soon_threadsafe(self._wait)

    def _wait(self) -> None:
        if self._loop is not None and self._is_due and self._timer is None:
            self._timer = self._loop.call_later(_DELAY_S, self._send)

    def _send(self) -> None:
        self._timer = None
        with self._lock:
            keys = list(islice(self._changed, _MOST_KEYS))
            for key in keys:
                del self._changed[key]
            stored = b"".join(key for key in keys if key in self._kept)
            evicted = b"".join(key for key in keys if key not in self._kept)
            self._is_due = False
            self._make_due()
        if keys:
            report = stage_control_pb2.CacheReport(stored=stored, evicted=evicted)
            self._reports.send(stage_control_pb2.StageMessage(cache=report))
