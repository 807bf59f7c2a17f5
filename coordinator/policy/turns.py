"""Whose turn it is where text and media compete for the same instances."""

from __future__ import annotations

from typing import Protocol

from coordinator.policy.books import Books
from coordinator.policy.plan import GROUPS
from coordinator.policy.view import Placement
from coordinator.policy.work import Work, left_to_do_s
from core.stages import ModalityGroup


class Turns(Protocol):
    """Asked by the dispatch before every placement, and told of every one."""

    def order(self, books: Books) -> list[ModalityGroup]:
        """Groups whose first waiting request may be placed now, first choice first. Changes nothing."""
        ...

    def took(self, work: Work, placement: Placement) -> None: ...


class FairTurns:
    """Start-time fair queueing (Goyal, Vin, Cheng 1996) over device seconds, with equal weights.

    A group that has had little device time goes first, so that text does not wait for the pictures of
    others; one that was idle saves no credit.
    """

    def __init__(self) -> None:
        self._virtual_s = 0.0
        self._finish_s = dict.fromkeys(GROUPS, 0.0)

    def order(self, books: Books) -> list[ModalityGroup]:
        present = [group for group in GROUPS if books.num_waiting(group)]
        return sorted(present, key=self._start_s) if len(present) > 1 else present

    def took(self, work: Work, placement: Placement) -> None:
        self._virtual_s = self._start_s(work.group)
        prefill_s, encode_s = left_to_do_s(work, placement)
        self._finish_s[work.group] = self._virtual_s + prefill_s + encode_s

    def _start_s(self, group: ModalityGroup) -> float:
        return max(self._virtual_s, self._finish_s[group])


class ArrivalTurns:
    """One queue for all, strictly in order: what a coupled server does."""

    def order(self, books: Books) -> list[ModalityGroup]:
        firsts = [work for group in GROUPS if (work := books.first_waiting(group)) is not None]
        if len(firsts) > 1:
            return [min(firsts, key=lambda work: work.order).group]
        return [work.group for work in firsts]

    def took(self, work: Work, placement: Placement) -> None:
        """Keeps no account."""
