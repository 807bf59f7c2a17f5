"""Which waiting request of a group is next."""

from __future__ import annotations

from typing import Protocol

from coordinator.policy.books import Books
from coordinator.policy.scheduler import Slo
from coordinator.policy.work import Work
from core.stages import ModalityGroup


class Queueing(Protocol):
    """Asked by the dispatch before every placement."""

    def first(self, books: Books, group: ModalityGroup, now_s: float) -> Work | None:
        """None where nothing of the group waits. Changes nothing."""
        ...


class ArrivalQueueing:
    """In order of arrival, moved forward by priority."""

    def first(self, books: Books, group: ModalityGroup, now_s: float) -> Work | None:  # noqa: ARG002
        return books.first_waiting(group)


class LateYields:
    """In order of arrival, but who is late in any case lets those go first who can still be in time.

    Late is who has waited for half the target: the other half goes by on instances. In an overload, strict
    order makes every request late by as much as the queue has grown; here those that can be served in time
    are. Late ones go on as soon as none that could be in time waits, and before all others once they have
    waited `most_wait_s`. Where classes of priority wait, order is strict.
    """

    def __init__(self, slo: Slo, most_wait_s: float = 30.0) -> None:
        self._slo = slo
        self._most_wait_s = most_wait_s

    def first(self, books: Books, group: ModalityGroup, now_s: float) -> Work | None:
        head = books.first_waiting(group)
        if head is None or books.has_priorities(group) or now_s - head.arrival_s >= self._most_wait_s:
            return head
        latest_s = now_s - self._slo.group_ttft_s(group) / 2
        if head.arrival_s >= latest_s:
            return head
        return books.first_arrived_since(group, latest_s) or head
