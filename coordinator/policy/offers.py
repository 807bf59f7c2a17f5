"""Who could give an instance to a stage, and what that would cost those who lose it."""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter
from typing import NamedTuple

from coordinator.policy.books import InstanceBook
from coordinator.policy.change import Change, MayMove
from coordinator.policy.plan import Assignment
from coordinator.policy.standing import Standing
from core.stages import Roles, Stage


class Terms(NamedTuple):
    """What all changes of one tick are weighed by."""

    may_move: MayMove
    weight: float  # w: of harm to decodes; harm to encodes and prefills weighs 1 / w
    worst_s: float  # how late work is that nobody could take: the target of the first token


class Need(NamedTuple):
    """A group wants one instance more at the stage; it would play `to`."""

    stage: Stage
    to: Assignment
    taker: Standing


def cost_of(book: InstanceBook, giver: Standing, kept: Roles, terms: Terms) -> float:
    """Of all the stages that the instance would play no longer for the giver."""
    total = 0.0
    lost = giver.members[book.instance_id] - kept
    for stage in sorted(lost, key=attrgetter("value")):  # a set has no order, and sums of floats have one
        weight = terms.weight if stage is Stage.DECODE else 1 / terms.weight
        total += giver.harm(stage, book, weight, terms.worst_s)
    return total


def offers(piece: str, need: Need, giver: Standing, terms: Terms) -> Iterator[Change]:
    """For each kind of instance that the giver has beside those of the stage, the one that holds least.

    An idle one costs next to nothing and so wins.
    """
    stage, to, taker = need
    gain = taker.gain(stage, terms.worst_s)
    if gain <= 0:
        return
    kept = to.roles if giver is taker else frozenset[Stage]()
    for book in _least_loaded(giver, stage if giver is taker else None, terms.may_move):
        cost = cost_of(book, giver, kept, terms)
        where = "inside the group" if giver is taker else f"from {giver.group.value}"
        reason = f"{taker.group.value} needs {stage.name}: {where}"
        yield Change(piece, book.instance_id, to, gain, cost, reason)


def _least_loaded(giver: Standing, but: Stage | None, may_move: MayMove) -> list[InstanceBook]:
    """Of each set of roles without the stage, the instance that holds least."""

    def load(book: InstanceBook) -> tuple[float, str]:
        held = book.load.kv_blocks / max(1, book.total_kv_blocks)
        return giver.backlog_s(book) + held, book.instance_id

    kinds = [own for roles, own in giver.by_roles.items() if but is None or but not in roles]
    free = ([book for book in own if may_move(book)] for own in kinds)
    return [min(books, key=load) for books in free if books]
