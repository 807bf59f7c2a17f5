"""What a request is spared on each instance by what caches hold, pulled from others where that is quicker."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from coordinator.policy.books import Books
from coordinator.policy.cost_model import CostModel
from coordinator.policy.prefixes import Level, Prefixes, as_prefixes
from coordinator.policy.warmth import COLD, Warmth
from coordinator.policy.work import Work

_NOBODY = Prefixes((), ())
_MOST_WEIGHED = 8  # holders of equally much, for the one with least to do


class Start(NamedTuple):
    """What a prefill instance would begin the request with, and what is left to do then."""

    source: str | None  # whom the prefix is pulled from; None: the instance has it itself
    cached_tokens: int  # leading ones, not computed
    prefill_s: float  # of the rest, alone on the device
    pull_s: float  # until the prefix is there
    arrive_s: float  # until all that others' caches send is there
    skipped: frozenset[int]  # items wholly in the prefix
    needed: Sequence[int]  # items that have to be encoded
    encode_s: float  # of these
    is_warm: bool  # whether caches have any of it


class Reuse:
    """Of one request, from its warmth. Instances with the same to begin with share one `Start`.

    With `alone`, an instance uses its own caches only, as coupled replicas do.
    """

    def __init__(self, work: Work, warmth: Warmth, books: Books, model: CostModel, *, alone: bool) -> None:
        self.own = _NOBODY  # leading tokens that instances have, some of which may be gone
        self.keepers: Sequence[Sequence[str]] = ()  # of each item, those who take work
        self._cold = Start(
            None, 0, work.prefill_s, 0.0, 0.0, frozenset(), range(len(work.media)), work.encode_s, False
        )
        self._is_cold = warmth is COLD or not (warmth.prefix_tokens or any(warmth.media))
        if self._is_cold:
            return
        self._work, self._books, self._model, self._alone = work, books, model, alone
        self._starts: dict[tuple[int, frozenset[int]], Start] = {}
        self._most_tokens = work.context_tokens - 1  # the last one has to be computed
        self._whole_s = model.prefill_s(work.context_tokens)
        self.own = as_prefixes(warmth.prefix_tokens)
        self._best_tokens = min(self._longest(), self._most_tokens)
        self._best_source: str | None = None  # found where it is pulled from
        if any(warmth.media):
            self.keepers = [_open(books, names) for names in warmth.media[: len(work.media)]]
        self._kept = _kept_by(self.keepers)

    @property
    def same_for_all(self) -> Start | None:
        """What every instance would begin with, where no cache has any of it."""
        return self._cold if self._is_cold else None

    @property
    def kept(self) -> Mapping[str, frozenset[int]]:
        """The items that an instance has, of those that have any."""
        return {} if self._is_cold else self._kept

    def start_at(self, name: str) -> Start:
        if self._is_cold:
            return self._cold
        return self.start(self.own.by_name.get(name, 0), self._kept.get(name, frozenset()))

    def start(self, own_tokens: int = 0, kept: frozenset[int] = frozenset()) -> Start:
        """Of an instance that has so many leading tokens and these items."""
        if self._is_cold:
            return self._cold
        own_tokens = min(own_tokens, self._most_tokens)
        key = own_tokens, kept
        if key not in self._starts:
            self._starts[key] = self._found(own_tokens, kept)
        return self._starts[key]

    def keeper(self, index: int, prefill: str) -> str | None:
        """Who answers for an item from its cache: the prefill instance, else the keeper with least to do."""
        keepers = self.keepers[index] if index < len(self.keepers) else ()
        if prefill in keepers:
            return prefill
        return None if self._is_cold or self._alone or not keepers else self._least_busy(keepers)

    def encoders(
        self, start: Start, prefill: str, needed: Sequence[str], stand_in: Callable[[], str]
    ) -> tuple[str, ...]:
        """Of all items, where those of the needed ones are known; `stand_in` would encode skipped ones."""
        if not start.is_warm:
            return tuple(needed)
        chosen = dict(zip(start.needed, needed, strict=True))
        return tuple(
            chosen.get(index) or self.keeper(index, prefill) or stand_in()
            for index in range(len(self._work.media))
        )

    def _found(self, own_tokens: int, kept: frozenset[int]) -> Start:
        work, model = self._work, self._model
        tokens, prefill_s = own_tokens, self._rest_s(own_tokens)
        source, pull_s = None, 0.0
        if self._best_tokens > own_tokens and not self._alone:
            move_s = model.kv_move_s(self._best_tokens - own_tokens)
            rest_s = self._rest_s(self._best_tokens)
            if move_s < prefill_s - rest_s:
                tokens, prefill_s, pull_s = self._best_tokens, rest_s, move_s
                source = self._source()
        skipped = frozenset(
            index
            for index, item in enumerate(work.media)
            if item.end_token is not None and item.end_token <= tokens
        )
        needed, arrive_s = [], pull_s
        for index, item in enumerate(work.media):
            if index in skipped or index in kept:
                continue
            if self._alone or index >= len(self.keepers) or not self.keepers[index]:
                needed.append(index)
            else:
                arrive_s = max(arrive_s, model.embedding_move_s(item.num_tokens))
        encode_s = work.encode_s
        if len(needed) < len(work.media):
            encode_s = sum([work.media[index].encode_s for index in needed])
        return Start(source, tokens, prefill_s, pull_s, arrive_s, skipped, needed, encode_s, True)

    def _rest_s(self, cached_tokens: int) -> float:
        """Prefill of what follows, attending to those before: its part of the whole."""
        if not cached_tokens:
            return self._work.prefill_s
        rest_s = self._model.prefill_s(self._work.context_tokens - cached_tokens, cached_tokens)
        return self._work.prefill_s * min(1.0, rest_s / self._whole_s)

    def _source(self) -> str:
        """Of the longest prefix."""
        if self._best_source is None:
            best = self._best_tokens
            levels = (level for level in self.own.levels if level.num_tokens >= best)
            names = (name for level in levels for name in self._present(level))
            self._best_source = self._least_busy(tuple(islice(names, _MOST_WEIGHED)))
        return self._best_source

    def _longest(self) -> int:
        """Leading tokens, of the instances that are there."""
        levels = reversed(self.own.levels)
        return next((level.num_tokens for level in levels if any(self._present(level))), 0)

    def _present(self, level: Level) -> Iterator[str]:
        names, instances = self.own.names, self._books.instances
        return (name for number in level.holders if (name := names[number]) in instances)

    def _least_busy(self, names: Sequence[str]) -> str:
        instances = self._books.instances

        def busy_s(name: str) -> float:
            load = instances[name].load
            return load.encode_s + load.prefill_s

        return names[0] if len(names) == 1 else min(names[:_MOST_WEIGHED], key=busy_s)


def _open(books: Books, names: Iterable[str]) -> list[str]:
    """Sorted: sets have no order, and decisions are to be the same again."""
    instances = books.instances
    return sorted(name for name in names if name in instances and instances[name].is_open)


def _kept_by(keepers: Sequence[Sequence[str]]) -> dict[str, frozenset[int]]:
    kept: dict[str, set[int]] = {}
    for index, names in enumerate(keepers):
        for name in names:
            kept.setdefault(name, set()).add(index)
    return {name: frozenset(items) for name, items in kept.items()}
