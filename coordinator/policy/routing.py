"""What a router before replicas does: every request goes to one of them as it arrives, and waits there."""

from __future__ import annotations

from coordinator.policy.books import Books, InstanceBook
from coordinator.policy.decisions import Decision, DecisionRing
from coordinator.policy.plan import GROUPS, needed_stages
from coordinator.policy.view import Placement
from coordinator.policy.work import Work


class Routing:
    """To the replica with the fewest requests in flight, the first of them at a tie.

    A router counts requests, not their tokens, and holds none back: blocks may be promised beyond what a
    replica has free, and its engine admits what waits there, first come, first served. Nothing waits here
    unless no instance that takes new work plays all stages the request needs.
    """

    def __init__(self, decisions: DecisionRing) -> None:
        self._decisions = decisions

    def place(self, books: Books, now_s: float) -> Placement | None:
        """The first request by order of arrival that a replica could serve, or None."""
        firsts = (work for group in GROUPS if (work := books.first_waiting(group)) is not None)
        for work in sorted(firsts, key=lambda work: work.order):
            replica = min(_replicas(books, work), key=_in_flight, default=None)
            if replica is not None:
                return self._placement(work, replica, now_s)
        return None

    def note_first_token(self, work: Work, ttft_s: float) -> None:
        """A router learns nothing."""

    def _placement(self, work: Work, replica: InstanceBook, now_s: float) -> Placement:
        name = replica.instance_id
        numbers = {"waited_s": now_s - work.arrival_s, "in_flight": float(_in_flight(replica))}
        self._decisions.add(Decision(now_s, "routing", work.request_id, f"goes to {name}", numbers))
        return Placement(work.request_id, (name,) * len(work.media), name, name, now_s)


def _replicas(books: Books, work: Work) -> list[InstanceBook]:
    """Open instances that do all of the request, in the order in which they came."""
    needed = needed_stages(work.group)
    return [
        book
        for book in books.instances.values()
        if book.is_open and book.serves(work.group) and needed <= book.roles
    ]


def _in_flight(book: InstanceBook) -> int:
    return book.load.sequences
