"""Who is inside: request ids in use, and the bound on those that wait."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from coordinator.errors import AlreadyRunningError, OverloadedError

_RETRY_AFTER_S = 1.0


class Admission:
    """Which ids are in use. A call is in here from its first check to its last event."""

    def __init__(self, max_waiting: int) -> None:
        self._max_waiting = max_waiting
        self._ids: set[str] = set()

    @contextmanager
    def enter(self, request_id: str, num_waiting: int) -> Iterator[None]:
        """Holds the id while the call lasts.

        Raises AlreadyRunningError, or OverloadedError if as many wait as may.
        """
        if request_id in self._ids:
            raise AlreadyRunningError("request_id", f"{request_id!r} is running already")
        if num_waiting >= self._max_waiting:
            raise OverloadedError(
                f"{num_waiting} requests are waiting already", _RETRY_AFTER_S, "max_waiting"
            )
        self._ids.add(request_id)
        try:
            yield
        finally:
            self._ids.remove(request_id)

    def __len__(self) -> int:
        return len(self._ids)
