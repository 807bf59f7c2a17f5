"""Applies placements to books, as the dispatcher and the simulator do."""

from __future__ import annotations

from coordinator.policy.books import Books
from coordinator.policy.scheduler import Scheduler
from coordinator.policy.view import Placement
from coordinator.policy.work import Work


def dispatched(scheduler: Scheduler, books: Books, now_s: float = 0.0) -> list[Placement]:
    """All that can be placed now, applied."""
    placements = []
    while (placement := scheduler.place(books, now_s)) is not None:
        apply(books, placement)
        placements.append(placement)
    return placements


def apply(books: Books, placement: Placement) -> Work:
    work = books.queued(placement.request_id)
    work.placement = placement
    work.outputs_at_dispatch = work.num_outputs
    books.note(work)
    return work
