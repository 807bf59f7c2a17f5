"""Which instances' load changed of late, so that readers refresh only those."""

from __future__ import annotations

from collections.abc import Iterable


class Journal:
    """Names of the instances whose load changed, in order; readers keep their position in it."""

    def __init__(self, most_entries: int = 65536) -> None:
        self._names: list[str] = []
        self._forgotten = 0
        self._most_entries = most_entries
        self.end = 0  # the position after the last entry

    def add(self, names: Iterable[str]) -> None:
        """Each of them has changed."""
        if len(self._names) >= self._most_entries:
            self._forgotten = self.end
            self._names.clear()
        self._names += names
        self.end = self._forgotten + len(self._names)

    def since(self, position: int) -> set[str] | None:
        """Names noted from the position on; None where those have been forgotten: any may have changed."""
        if position < self._forgotten:
            return None
        return set(self._names[position - self._forgotten :])
