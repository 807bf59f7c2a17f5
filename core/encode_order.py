"""Which media items are encoded next, and how much of them before others get their turn.

One rule for stage servers and the simulator, and for preprocessing as for the device.
docs/architecture.md describes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar, get_args

EncodeOrder = Literal["shortest", "arrival"]
ENCODE_ORDERS: tuple[str, ...] = get_args(EncodeOrder)

SLICE_S = 0.015  # of the device at a time: about what a decode step or a small item may have to wait for
AGING = 0.05  # what comes within work / AGING seconds after an item may pass it, nothing later
MOST_WASTE = 0.25  # of a batch's padded tokens


class Item(Protocol):
    """What the order looks at. Two items are equal only if they are the same."""

    @property
    def num_tokens(self) -> int: ...

    @property
    def arrived_s(self) -> float:
        """When it was asked for."""
        ...

    @property
    def place(self) -> int:
        """Of the items of its request, in order of the prompt."""
        ...


I = TypeVar("I", bound=Item)  # noqa: E741
Predict = Callable[[int], float]
Padded = Callable[[Sequence[int]], int]


def rank(work_s: float, arrived_s: float, order: EncodeOrder) -> float:
    """The lowest goes first. It does not change with time, so who passes whom is known from the start."""
    return arrived_s if order == "arrival" else work_s + AGING * arrived_s


@dataclass(frozen=True, slots=True)
class Slice(Generic[I]):
    """What the device does next: items at once, or one part of a large one."""

    items: tuple[I, ...]
    number: int = 0
    count: int = 1  # parts that the items are encoded in

    @property
    def is_last(self) -> bool:
        return self.number + 1 == self.count


class EncodeSchedule(Generic[I]):
    """Items that wait for a device.

    Small ones, predicted to take no more than a slice, go together up to a slice. A large one goes slice by
    slice, one such item at a time, and small ones pass between its slices as the order says. With the order
    "arrival" nothing is cut, and a batch is bounded by its tokens only.

    `padded` says how many tokens the encoder computes for items that are encoded together.
    """

    def __init__(
        self,
        predict: Predict,
        *,
        most_tokens: int,
        slice_s: float = SLICE_S,
        order: EncodeOrder = "shortest",
        padded: Padded = sum,
    ) -> None:
        self._predict = predict
        self._most_tokens = most_tokens
        self._slice_s = slice_s if order == "shortest" else math.inf
        self._order: EncodeOrder = order
        self._padded = padded
        self._waiting: list[I] = []
        self._begun: Slice[I] | None = None  # the next part of a large item

    def __len__(self) -> int:
        """Items that wait, one that has begun not counted."""
        return len(self._waiting)

    @property
    def has_work(self) -> bool:
        return bool(self._waiting) or self._begun is not None

    def add(self, item: I) -> None:
        self._waiting.append(item)

    def drop(self, item: I) -> None:
        """Takes an item out wherever it is; an unknown one is no error."""
        if self._begun is not None and item in self._begun.items:
            self._begun = None
        elif item in self._waiting:
            self._waiting.remove(item)

    def next(self) -> Slice[I] | None:
        """What the device does now; None if nothing waits."""
        begun = self._begun
        if not self._waiting:
            return None if begun is None else self._go_on(begun)
        best = min(self._candidates(), key=self._key, default=None)
        if begun is not None and (best is None or self._key_of_begun(begun) <= self._key(best)):
            return self._go_on(begun)
        if best is None:
            return None
        if not self._is_large(best):
            return self._batch(best)
        self._waiting.remove(best)
        return self._go_on(Slice((best,), 0, math.ceil(self._predict(best.num_tokens) / self._slice_s)))

    def _go_on(self, part: Slice[I]) -> Slice[I]:
        self._begun = None if part.is_last else Slice(part.items, part.number + 1, part.count)
        return part

    def _candidates(self) -> Iterable[I]:
        if self._begun is None:
            return self._waiting
        return [item for item in self._waiting if not self._is_large(item)]

    def _batch(self, first: I) -> Slice[I]:
        """As many as go into a slice; those that would waste too much padding are left for another."""
        if len(self._waiting) == 1:
            self._waiting.clear()
            return Slice((first,))
        chosen, work_s = [first], self._predict(first.num_tokens)
        for item in sorted(self._candidates(), key=self._key):
            if item is first or self._is_large(item):
                continue
            sizes = [each.num_tokens for each in (*chosen, item)]
            work_s += self._predict(item.num_tokens)
            if sum(sizes) > self._most_tokens or work_s > self._slice_s:
                break
            if sum(sizes) < (1 - MOST_WASTE) * self._padded(sizes):
                work_s -= self._predict(item.num_tokens)
                continue
            chosen.append(item)
        self._waiting = [item for item in self._waiting if item not in chosen]
        return Slice(tuple(chosen))

    def _is_large(self, item: I) -> bool:
        return self._predict(item.num_tokens) > self._slice_s

    def _key(self, item: I) -> tuple[float, int]:
        return rank(self._predict(item.num_tokens), item.arrived_s, self._order), item.place

    def _key_of_begun(self, part: Slice[I]) -> tuple[float, int]:
        """With what is left of its work, so that it is passed ever less."""
        item = part.items[0]
        left_s = self._predict(item.num_tokens) * (part.count - part.number) / part.count
        return rank(left_s, item.arrived_s, self._order), item.place
