"""Which instances' load changed of late, so that readers refresh only those."""

from __future__ import annotations


class Journal:
    """Names of the instances whose load changed, in order; readers keep their position in it."""

    def __init__(self, most_entries: int = 65536) -> None:
        self._names: list[str] = []
        self._forgotten = 0
        self._most_entries = most_entries

    @property
    def end(self) -> int:
        """The position after the last entry."""
        return self._forgotten + len(self._names)

    def add(self, name: str) -> None:
        if len(self._names) >= self._most_entries:
            self._forgotten += len(self._names)
            self._names.clear()
        self._names.append(name)

    def since(self, position: int) -> set[str] | None:
        """Names noted from the position on; None where those have been forgotten: any may have changed."""
        if position < self._forgotten:
            return None
        return set(self._names[position - self._forgotten :])
