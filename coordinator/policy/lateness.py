"""Which waiting request of a group is next."""

from __future__ import annotations

from collections import deque
from itertools import islice
from math import inf
from typing import Protocol

from coordinator.policy.books import Books
from coordinator.policy.plan import GROUPS
from coordinator.policy.scheduler import Slo
from coordinator.policy.work import Work, left_to_do_s
from core.stages import ModalityGroup

_MOST_ASKED = 64  # who may be late, before one is taken that is not in any case


class Queueing(Protocol):
    """Asked by the dispatch before every placement, and told of first tokens."""

    def first(self, books: Books, group: ModalityGroup, now_s: float) -> Work | None:
        """None where nothing of the group waits. Changes nothing."""
        ...

    def slack_s(self, work: Work) -> float:
        """How long the work may wait on an instance and still be in time, as a rule."""
        ...

    def is_due(self, work: Work, now_s: float) -> bool:
        """Whether it waits for no better moment: media go where there is much text, too."""
        ...

    def shown(self, work: Work, now_s: float) -> None:
        """Its first token is out."""
        ...


class ArrivalQueueing:
    """In order of arrival, moved forward by priority."""

    def first(self, books: Books, group: ModalityGroup, now_s: float) -> Work | None:  # noqa: ARG002
        return books.first_waiting(group)

    def slack_s(self, work: Work) -> float:  # noqa: ARG002
        return inf

    def is_due(self, work: Work, now_s: float) -> bool:  # noqa: ARG002
        return True

    def shown(self, work: Work, now_s: float) -> None:
        """Keeps no account."""


class LateYields:
    """In order of arrival, but who is late in any case lets those go first who can still be in time.

    Late is who has waited so long that its own work, and what instances lately added to that of others in
    19 of 20 cases, would end past the target. In an overload, strict order makes every request late by as
    much as the queue has grown; here those that can be served in time are. Late ones go on as soon as none
    that could be in time waits, and before all others once they have waited `slo.late_wait_s`. Where
    classes of priority wait, order is strict.
    """

    def __init__(self, slo: Slo) -> None:
        self._most_wait_s = slo.late_wait_s
        self._targets_s = {group: slo.group_ttft_s(group) for group in GROUPS}
        self._halves_s = {group: target_s / 2 for group, target_s in self._targets_s.items()}
        self._service = {group: ServiceTime(target_s) for group, target_s in self._targets_s.items()}

    def first(self, books: Books, group: ModalityGroup, now_s: float) -> Work | None:
        head = books.first_waiting(group)
        if head is None or books.has_priorities(group) or now_s - head.arrival_s >= self._most_wait_s:
            return head
        service, begin_s = self._service[group], now_s - self._targets_s[group]
        if head.arrival_s >= begin_s + service.most_s(head):
            return head
        for work in islice(books.arrived_since(group, begin_s + service.least_s), _MOST_ASKED):
            if work.arrival_s >= begin_s + service.most_s(work):
                return work
        return next(books.arrived_since(group, begin_s + service.limit_s), head)

    def slack_s(self, work: Work) -> float:
        """Half of the target is for instances; the other half goes by before."""
        return max(0.0, self._halves_s[work.group] - work.encode_s - work.prefill_s)

    def is_due(self, work: Work, now_s: float) -> bool:
        return now_s - work.arrival_s >= self._most_wait_s

    def shown(self, work: Work, now_s: float) -> None:
        if work.placement is not None:
            self._service[work.group].note(work, now_s - work.placement.at_s)


class ServiceTime:
    """Seconds from dispatch to the first token: the work's own, and what was added to that lately.

    Half of the target is added before anything was measured.
    Work that waits counts whole, as if no cache had any of it.
    """

    _KEPT = 64
    _RENEW = 8  # measured ones between two looks at the quantile
    _QUANTILE = 0.95
    _MOST_SHARE = 0.9  # of the target: where instances take longer, the latest arrivals go first

    def __init__(self, target_s: float) -> None:
        self._added_s = target_s / 2
        self.limit_s = self._MOST_SHARE * target_s
        self._added: deque[float] = deque(maxlen=self._KEPT)
        self._unseen = 0

    @property
    def least_s(self) -> float:
        """Of any work."""
        return min(self.limit_s, self._added_s)

    def most_s(self, work: Work) -> float:
        """In 19 of 20 cases, as a rule."""
        return min(self.limit_s, work.encode_s + work.prefill_s + self._added_s)

    def note(self, work: Work, took_s: float) -> None:
        prefill_s, encode_s = left_to_do_s(work)
        self._added.append(took_s - encode_s - prefill_s)
        self._unseen += 1
        if self._unseen >= self._RENEW:
            self._unseen = 0
            ordered = sorted(self._added)
            self._added_s = ordered[int(self._QUANTILE * (len(ordered) - 1))]
