"""Media items that wait for their turn on one device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from coordinator.policy.work import MediaWork
from core.costs import EncodeCosts
from core.encode_order import SLICE_S, EncodeOrder, EncodeSchedule
from core.encode_turns import EncodeTurns
from simulator.job import Job

MOST_TOKENS = 4096  # of one batch, as in the live engine


@dataclass(slots=True, eq=False)
class Item:
    """One media item of a job's attempt. Nothing in it changes."""

    job: Job
    place: int
    attempt: int
    num_tokens: int
    arrived_s: float  # on the instance's host
    work_s: float  # on the device


class Part(NamedTuple):
    """What the device does at once."""

    seconds: float
    encoded: tuple[Item, ...]  # whose embeddings are there then


class EncodeQueue:
    """Order and turns are those of core; items of an earlier attempt drop out."""

    __slots__ = ("_costs", "_order", "_preprocesses", "_schedule", "_turns", "has_work", "note_step")

    def __init__(
        self,
        costs: EncodeCosts,
        order: EncodeOrder,
        *,
        tpot_s: float = 0.0,
        slice_s: float = SLICE_S,
        preprocesses: bool = False,
    ) -> None:
        """`tpot_s`: the target per token, 0.0 for none. With `preprocesses` the device waits for the decoding
        of each.
        """
        self._costs = costs
        self._preprocesses = preprocesses
        self._order: EncodeOrder = order
        self._schedule: EncodeSchedule[Item] = EncodeSchedule(
            costs.encode_s, most_tokens=MOST_TOKENS, slice_s=slice_s, order=order
        )
        self._turns = EncodeTurns(slice_s, tpot_s)
        self.note_step = self._turns.note_step  # asked for every step, and so is this:
        self.has_work = False  # whether anything waits

    def is_next(self, is_text_ready: Callable[[], bool]) -> bool:
        """Whether a part goes before a step, where both could run."""
        return self._turns.is_encode_next(is_text_ready)

    def add(self, job: Job, index: int, asked_s: float) -> None:
        item = job.work.media[index]
        self._schedule.add(Item(job, index, job.attempt, item.num_tokens, asked_s, self._seconds(item)))
        self.has_work = True

    def next(self) -> Part | None:
        """What is encoded now, at least one item of it still wanted; None if none waits any more."""
        schedule = self._schedule
        while (part := schedule.next()) is not None:
            live = [item for item in part.items if item.attempt == item.job.attempt]
            if live:
                seconds = sum([item.work_s for item in live]) / part.count
                self.has_work = schedule.has_work
                self._turns.note_slice(seconds, is_last=self._order == "arrival" or not self.has_work)
                return Part(seconds, tuple(live) if part.is_last else ())
            for item in part.items:
                schedule.drop(item)
        self.has_work = False
        return None

    def _seconds(self, item: MediaWork) -> float:
        seconds = self._costs.encode_s(item.num_tokens)
        return seconds + self._costs.preprocess_s(item.pixels) if self._preprocesses else seconds
