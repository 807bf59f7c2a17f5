"""The host's threads that decode pictures for one instance."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, field

from core.costs import EncodeCosts
from core.encode_order import SLICE_S, EncodeOrder, rank
from simulator.events import Events
from simulator.job import Job

Ticket = tuple[Job, int, int]  # job, media item, attempt


@dataclass(frozen=True, slots=True, order=True)
class _Item:
    rank: tuple[float, int]
    number: int  # of those with one rank the first that came
    asked_s: float = field(compare=False)
    seconds: float = field(compare=False)
    ticket: Ticket = field(compare=False)
    is_large: bool = field(compare=False)


class MediaWorkers:
    """As those of a stage server: the best by `core.encode_order` first, small items and large ones each in a
    line of their own, and of several threads large items leave one to small ones.
    """

    def __init__(
        self,
        count: int,
        costs: EncodeCosts,
        order: EncodeOrder,
        events: Events,
        decoded: Callable[[Ticket, float], None],
        *,
        slice_s: float = SLICE_S,
        keeps_one: bool = True,
    ) -> None:
        """`decoded` hears of each item, and when it was added. Large is what takes longer than `slice_s`;
        without `keeps_one` large ones take all threads.
        """
        self._count = count
        self._most_large = max(1, count - 1) if keeps_one else count
        self._costs = costs
        self._slice_s = slice_s
        self._order: EncodeOrder = order
        self._events = events
        self._decoded = decoded
        self._waiting: list[_Item] = []
        self._num_busy = self._num_large = 0
        self._num_added = 0

    def add(self, ticket: Ticket) -> None:
        job, index, _ = ticket
        media = job.work.media[index]
        seconds = self._costs.preprocess_s(media.pixels)
        work_s = seconds + self._costs.encode_s(media.num_tokens)
        self._num_added += 1
        now_s = self._events.time_s
        item_rank = rank(work_s, now_s, self._order), index
        is_large = seconds > self._slice_s
        insort(self._waiting, _Item(item_rank, self._num_added, now_s, seconds, ticket, is_large))
        self._let_in()

    def _let_in(self) -> None:
        left: list[_Item] = []
        for item in self._waiting:
            job, _, attempt = item.ticket
            if job.is_outdated(attempt):
                continue
            if self._num_busy == self._count or (item.is_large and self._num_large == self._most_large):
                left.append(item)
                continue
            self._num_busy += 1
            self._num_large += item.is_large
            self._events.at(self._events.time_s + item.seconds, self._ended, item)
        self._waiting = left

    def _ended(self, item: _Item) -> None:
        self._num_busy -= 1
        self._num_large -= item.is_large
        self._let_in()
        self._decoded(item.ticket, item.asked_s)
