"""Prefill allocation: instances for the requests that wait, as long as that pays."""

from __future__ import annotations

from collections.abc import Iterator

from coordinator.policy.books import InstanceBook
from coordinator.policy.change import Change, MayMove
from coordinator.policy.offers import Terms, cost_of
from coordinator.policy.plan import Assignment
from coordinator.policy.standing import Standing
from core.stages import Stage


def e_max_for_prefill(standing: Standing, may_move: MayMove) -> InstanceBook | None:
    """The decode-only instance with most unused blocks, if another decodes beside it."""
    decoders = standing.players[Stage.DECODE]
    free = [
        book
        for book in decoders
        if Stage.PREFILL not in standing.members[book.instance_id] and may_move(book)
    ]
    if len(decoders) < 2 or not free:
        return None
    return max(free, key=lambda book: (not book.load.sequences, book.free_kv_blocks))


def prefill_change(standing: Standing, to: Assignment, terms: Terms) -> Iterator[Change]:
    """Takes e_max from decode for the waiting requests R_p.

    Gain = sum over R_p of (T(R_p, E_p) - T(R_p, E_p + e_max)) / input length; Cost = sum over B_d of
    (M(e_max) + w * L(B_d, E_d - e_max)) / output length. An idle decode instance costs no migration and so
    goes first.
    """
    if not standing.jobs:
        return
    book = e_max_for_prefill(standing, terms.may_move)
    if book is None:
        return
    gain = standing.gain(Stage.PREFILL, terms.worst_s)
    cost = cost_of(book, standing, to.roles, terms)
    reason = f"{len(standing.jobs)} requests wait for prefill"
    yield Change("prefill allocation", book.instance_id, to, gain, cost, reason)
