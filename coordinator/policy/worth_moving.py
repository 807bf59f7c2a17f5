"""Which sequences leave an instance before it plays other stages."""

from __future__ import annotations

from typing import Protocol

from coordinator.policy.books import Books, InstanceBook
from coordinator.policy.work import Work
from core.stages import Roles, Stage


class MoveCostsModel(Protocol):
    """Predicted seconds."""

    def decode_step_s(self, num_sequences: int, context_tokens: int) -> float: ...

    def kv_move_s(self, num_tokens: int) -> float: ...


def worth_moving(books: Books, instance_id: str, given_up: Roles, costs: MoveCostsModel) -> list[Work]:
    """Sequences that are sooner elsewhere than at their end in place; all where every stage is given up.

    Empty where the instance goes on decoding. Some may turn out not to be movable now.
    """
    if Stage.DECODE not in given_up:
        return []
    book, is_leaving = books.instances[instance_id], given_up == frozenset(Stage)
    return [
        work
        for work in books.running.values()
        if work.placement is not None
        and work.placement.decode == instance_id
        and (is_leaving or _is_quicker_moved(work, book, costs))
    ]


def _is_quicker_moved(work: Work, book: InstanceBook, costs: MoveCostsModel) -> bool:
    left_tokens = max(1, work.reserve_tokens - work.num_outputs)
    step_s = costs.decode_step_s(max(1, book.load.decoding), book.load.context_tokens)
    return left_tokens * step_s > costs.kv_move_s(work.context_tokens)
