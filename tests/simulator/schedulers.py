"""Small schedulers to test the simulator with: no opinion beyond what a test needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from coordinator.policy.books import Books, InstanceBook
from coordinator.policy.decisions import DecisionRing
from coordinator.policy.plan import Assignment, Plan
from coordinator.policy.view import Placement
from coordinator.policy.work import Work
from core.costs import StepShape
from core.stages import ModalityGroup, Stage, parse_roles


class PlanScheduler:
    """Least loaded per stage under a plan that changes at given times."""

    tick_s = 0.25

    def __init__(self, *plans: tuple[float, Mapping[str, str]]) -> None:
        """Each plan: from when, and roles by instance; an instance not named is coupled."""
        self.decisions = DecisionRing()
        self._plans = [
            Plan(number, {name: _assignment(what) for name, what in roles.items()})
            for number, (_, roles) in enumerate(plans, 1)
        ] or [Plan()]
        self._starts = [start_s for start_s, _ in plans] or [0.0]
        self.steps: list[tuple[str, StepShape, float]] = []
        self.first_tokens = 0
        self.finished = 0

    def place(self, books: Books, now_s: float) -> Placement | None:
        for group in (ModalityGroup.TEXT, ModalityGroup.MULTIMODAL):
            work = books.first_waiting(group)
            if work is not None and (placement := _placement(books, work, now_s)) is not None:
                return placement
        return None

    def plan(self, books: Books, now_s: float) -> Plan:
        return [plan for plan, start_s in zip(self._plans, self._starts, strict=True) if start_s <= now_s][-1]

    def note_arrival(self, work: Work, now_s: float) -> None: ...

    def note_step(self, instance_id: str, shape: StepShape, seconds: float) -> None:
        self.steps.append((instance_id, shape, seconds))

    def note_encode(self, instance_id: str, num_tokens: int, seconds: float) -> None: ...

    def note_first_token(self, work: Work, ttft_s: float) -> None:
        self.first_tokens += 1

    def note_finished(self, work: Work, tpot_s: float) -> None:
        self.finished += 1


class SaidScheduler(PlanScheduler):
    """Every request goes where a test says, as it arrives."""

    def __init__(self, said: Mapping[str, Placement], *plans: tuple[float, Mapping[str, str]]) -> None:
        super().__init__(*plans)
        self._said = said

    def place(self, books: Books, now_s: float) -> Placement | None:
        for group in (ModalityGroup.TEXT, ModalityGroup.MULTIMODAL):
            work = books.first_waiting(group)
            if work is not None:
                return replace(self._said[work.request_id], request_id=work.request_id, at_s=now_s)
        return None


def _assignment(what: str) -> Assignment:
    """ "pd" for both groups, "text:pd" for one."""
    group, _, roles = what.rpartition(":")
    return Assignment(parse_roles(roles), ModalityGroup(group or "shared"))


def _placement(books: Books, work: Work, now_s: float) -> Placement | None:
    prefills = [
        book
        for book in books.players(Stage.PREFILL, work.group)
        if book.has_kv_room(work.computed_tokens) and book.has_embedding_room(work.embedding_blocks)
    ]
    prefill = min(prefills, key=_load, default=None)
    if prefill is None:
        return None
    both = [prefill] if prefill.plays(Stage.DECODE) else books.players(Stage.DECODE, work.group)
    decode = min((book for book in both if book.has_kv_room(work.promised_tokens)), key=_load, default=None)
    encoders = books.players(Stage.ENCODE, work.group)
    if decode is None or (work.media and not encoders):
        return None
    encoder = prefill if prefill.plays(Stage.ENCODE) else min(encoders, key=_load, default=prefill)
    encode = (encoder.instance_id,) * len(work.media)
    return Placement(work.request_id, encode, prefill.instance_id, decode.instance_id, now_s)


def _load(book: InstanceBook) -> tuple[float, int, str]:
    return book.load.prefill_s + book.load.encode_s, book.load.sequences, book.instance_id
