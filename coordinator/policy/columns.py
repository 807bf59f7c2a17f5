"""The instances' loads as columns of numbers, so that one placement weighs thousands of them at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from coordinator.policy.books import Books, InstanceBook
from coordinator.policy.costing import Costing
from core.stages import ModalityGroup, Roles, Stage

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
_Batch = tuple[int, int, int]  # sequences, their tokens or blocks, version of the costs
UNBOUNDED = np.iinfo(np.int64).max


class Columns:
    """One row per instance, refreshed from the books' journal; changes nothing in them."""

    def __init__(self, costing: Costing) -> None:
        self._costing = costing
        self._version = -1
        self._position = 0
        self._books: Books | None = None
        self.ids: list[str] = []
        self._row_of: dict[str, int] = {}
        self._players: dict[tuple[Roles, ModalityGroup], Ints] = {}
        self._named: Sequence[str] = ()  # whose rows were asked for last
        self._named_rows: Ints = np.zeros(0, dtype=np.int64)

    def refresh(self, books: Books) -> None:
        if books is not self._books or books.version != self._version:
            self._rebuild(books)
            return
        changed = books.journal.since(self._position)
        self._position = books.journal.end
        for name in books.instances if changed is None else changed:
            row = self._row_of.get(name)
            if row is not None:
                self._fill(row, books.instances[name])

    def row(self, name: str) -> int:
        return self._row_of[name]

    def rows_of(self, names: Sequence[str]) -> Ints:
        """Row of each, -1 for those who have none; found once for the same list, which nobody changes."""
        if names is not self._named:
            rows = [self._row_of.get(name, -1) for name in names]
            self._named, self._named_rows = names, np.array(rows, dtype=np.int64)
        return self._named_rows

    def players(self, roles: Roles, group: ModalityGroup) -> Ints:
        """Rows of open instances that play all these stages for the group; found once per change of
        instances."""
        known = self._players.get((roles, group))
        if known is None:
            books = self._books.instances.values() if self._books else ()
            rows = [row for row, book in enumerate(books) if book.is_open and _plays(book, roles, group)]
            known = self._players[roles, group] = np.array(rows, dtype=np.int64)
        return known

    def _rebuild(self, books: Books) -> None:
        self._books, self._version, self._position = books, books.version, books.journal.end
        self.ids = list(books.instances)
        self._row_of = {name: row for row, name in enumerate(self.ids)}
        self._players.clear()
        self._named = ()
        count = len(self.ids)
        self.free_kv_tokens: Ints = np.zeros(count, dtype=np.int64)  # of whole blocks; 0 where it is crowded
        self.free_embedding_blocks: Ints = np.zeros(count, dtype=np.int64)
        self.text_tokens: Ints = np.zeros(count, dtype=np.int64)
        self.media_tokens: Ints = np.zeros(count, dtype=np.int64)
        self.encode_s: Floats = np.zeros(count)  # of items dispatched here
        self.passed_s: Floats = np.zeros(count)  # of it, what small items pass
        self.backlog_s: Floats = np.zeros(count)  # device time of encodes and prefills dispatched here
        self.encodes: Bools = np.zeros(count, dtype=np.bool_)
        self.stretch: Floats = np.ones(count)  # by how much the decode batch lengthens a prefill
        self.decode_step_s: Floats = np.zeros(count)
        self._batches: list[_Batch | None] = [None] * count  # that `stretch` is of
        self._promises: list[_Batch | None] = [None] * count  # that `decode_step_s` is of
        for row, book in enumerate(books.instances.values()):
            self.encodes[row] = Stage.ENCODE in book.roles
            self._fill(row, book)

    def _fill(self, row: int, book: InstanceBook) -> None:
        """Step times are found anew only where the batch changed: most changes are of other things."""
        load, version = book.load, self._costing.model.version
        batch = load.decoding, load.context_tokens, version
        if batch != self._batches[row]:
            self._batches[row] = batch
            self.stretch[row] = self._costing.prefill_stretch(load.decoding, load.context_tokens)
        promise = load.sequences, load.kv_blocks, version
        if promise != self._promises[row]:
            self._promises[row] = promise
            self.decode_step_s[row] = self._costing.promised_step_s(book)
            free_tokens = book.free_kv_blocks * book.block_tokens
            self.free_kv_tokens[row] = 0 if self._costing.is_crowded(book) else free_tokens
        total = book.total_embedding_blocks
        self.free_embedding_blocks[row] = UNBOUNDED if total is None else total - load.embedding_blocks
        self.text_tokens[row] = load.text_tokens
        self.media_tokens[row] = load.media_tokens
        self.encode_s[row] = load.encode_s
        self.passed_s[row] = load.passed_s
        stretched_s = load.prefill_s * float(self.stretch[row]) if load.prefills else 0.0
        self.backlog_s[row] = load.encode_s + stretched_s


def _plays(book: InstanceBook, roles: Roles, group: ModalityGroup) -> bool:
    return roles <= book.roles and book.serves(group)
