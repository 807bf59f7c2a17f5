"""What many instances would begin a request with, as columns of numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from coordinator.policy.columns import Columns, Floats, Ints
from coordinator.policy.reuse import Reuse, Start


class StartRows:
    """Few are different, so each is found once. Where no cache has anything, numbers stand for all rows."""

    def __init__(self, reuse: Reuse, columns: Columns, rows: Ints) -> None:
        self._which: Ints | None = None  # of the different ones, by row; None: the first
        self.different: list[Start] = [reuse.start()]
        if reuse.own or reuse.kept:
            self._which = self._find(reuse, columns)[rows]

    @property
    def are_warm(self) -> bool:
        return self._which is not None or self.different[0].is_warm

    def at(self, place: int) -> int:
        """The number of the start of that row."""
        return 0 if self._which is None else int(self._which[place])

    def of(self, value: Callable[[Start], float]) -> Floats | float:
        return self.spread([value(start) for start in self.different])

    def spread(self, values: Sequence[float]) -> Floats | float:
        """One value for each of the different starts, as a column of the rows."""
        if self._which is None:
            return values[0]
        column: Floats = np.array(values, dtype=np.float64)[self._which]
        return column

    def _find(self, reuse: Reuse, columns: Columns) -> Ints:
        """For all rows of the columns; adds to the different ones."""
        which = np.zeros(len(columns.ids), dtype=np.int64)
        amounts, row_of = [0], columns.rows_of(reuse.own.names)
        for level in reuse.own.levels:
            rows = row_of[level.holders]
            which[rows[rows >= 0]] = len(amounts)
            amounts.append(level.num_tokens)
        self.different = [reuse.start(amount) for amount in amounts]
        for name, kept in reuse.kept.items():
            row = columns.row(name)
            own_tokens = amounts[which[row]]
            which[row] = len(self.different)
            self.different.append(reuse.start(own_tokens, kept))
        return which
