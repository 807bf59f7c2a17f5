"""The books as one policy set of several sees them."""

from __future__ import annotations

from collections.abc import Container

from coordinator.policy.books import Books


class PartOfBooks(Books):
    """Some instances of the whole books; of what waits, what is queued here.

    Loads, flags and the journal are those of the whole, not copies: nothing is noted here, only queued and
    ended. What runs is left out, which no policy reads.
    """

    def __init__(self, whole: Books) -> None:
        super().__init__()
        self._whole = whole
        self.journal = whole.journal
        self.version = -1

    @property
    def is_behind(self) -> bool:
        """Whether the instances of the whole have changed since `show`."""
        return self.version != self._whole.version

    def show(self, names: Container[str] | None = None) -> None:
        """Has these instances of the whole, as far as they are there; None: all."""
        instances = self._whole.instances
        self.instances = {name: book for name, book in instances.items() if names is None or name in names}
        self.version = self._whole.version
