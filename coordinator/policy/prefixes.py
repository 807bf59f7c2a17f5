"""How many leading tokens of a request instances have, where many may have the same few."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]


class Level(NamedTuple):
    """Who has exactly so many tokens."""

    num_tokens: int
    holders: Numbers  # places in `Prefixes.names`


class Prefixes(Mapping[str, int]):
    """A mapping from names, made only when it is read as one: who weighs a thousand instances goes by levels.

    Nothing in it changes, nor in `names`, which all answers share while instances stay the same.
    """

    def __init__(self, names: Sequence[str], levels: Iterable[Level]) -> None:
        """No number is in two levels."""
        self.names = names
        self.levels = sorted(levels, key=lambda level: level.num_tokens)
        self._by_name: dict[str, int] | None = None

    @property
    def by_name(self) -> Mapping[str, int]:
        """All of it; made once."""
        if self._by_name is None:
            self._by_name = {name: level.num_tokens for level in self.levels for name in self.holders(level)}
        return self._by_name

    def at_most(self, num_tokens: int) -> Prefixes:
        """The same, of a prompt that is cut there."""
        cut = (Level(min(level.num_tokens, num_tokens), level.holders) for level in self.levels)
        return Prefixes(self.names, cut)

    def holders(self, level: Level) -> list[str]:
        return [self.names[number] for number in level.holders.tolist()]

    def __bool__(self) -> bool:
        return bool(self.levels)

    def __len__(self) -> int:
        return sum(len(level.holders) for level in self.levels)

    def __iter__(self) -> Iterator[str]:
        return iter(self.by_name)

    def __getitem__(self, name: str) -> int:
        return self.by_name[name]

    def __repr__(self) -> str:
        return f"Prefixes({self.by_name})"


def as_prefixes(tokens: Mapping[str, int]) -> Prefixes:
    """Any mapping by levels; who has none is left out."""
    if isinstance(tokens, Prefixes):
        return tokens
    numbers: dict[int, list[int]] = {}
    for number, amount in enumerate(tokens.values()):
        if amount:
            numbers.setdefault(amount, []).append(number)
    levels = [Level(amount, np.array(holders, dtype=np.int64)) for amount, holders in numbers.items()]
    return Prefixes(list(tokens), levels)
