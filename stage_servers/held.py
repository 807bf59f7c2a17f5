"""Calls that are meant for a sequence which the engine is not given yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from stage_servers.reports import Key


class HeldCalls:
    """By sequence: from `hold` on calls wait, until `release` makes them in order, or `drop` forgets them."""

    def __init__(self) -> None:
        self._calls: dict[Key, list[Callable[[], None]]] = {}

    def __iter__(self) -> Iterator[Key]:
        return iter(tuple(self._calls))

    def hold(self, key: Key) -> None:
        self._calls.setdefault(key, [])

    def call(self, key: Key, call: Callable[[], None]) -> None:
        """Now, if the sequence's calls are not held."""
        if key in self._calls:
            self._calls[key].append(call)
        else:
            call()

    def release(self, key: Key) -> None:
        """Unknown keys are no error."""
        for call in self._calls.pop(key, ()):
            call()

    def drop(self, key: Key) -> None:
        """Unknown keys are no error."""
        self._calls.pop(key, None)
