"""Elastic Multimodal Parallelism: the policies joined to one scheduler."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from coordinator.policy.adjust import Adjuster
from coordinator.policy.books import Books
from coordinator.policy.change import Change
from coordinator.policy.costing import Costing
from coordinator.policy.decisions import Decision, DecisionRing
from coordinator.policy.demand import DemandMeter
from coordinator.policy.emp_dispatch import emp_dispatch
from coordinator.policy.forms import layout_name
from coordinator.policy.hysteresis import Hysteresis
from coordinator.policy.layouts import coupled_layout
from coordinator.policy.offers import Terms
from coordinator.policy.pieces import Piece, Pieces
from coordinator.policy.plan import Assignment, Plan, PlanError, check_assignments
from coordinator.policy.reshape import Reshape, Reshaper
from coordinator.policy.scheduler import Slo
from coordinator.policy.slack import DEFAULT_WEIGHT, SlackWeight
from coordinator.policy.standings import standings_of
from coordinator.policy.view import Placement
from coordinator.policy.warmth import WarmthSource
from coordinator.policy.work import Work
from core.costs import StepShape
from core.stages import Stage

_STEPS_LEARNED = 64  # between two plans; a device drifts slower than steps come


class EmpScheduler:
    """Every `reshape_s` the whole form is weighed anew, and at every tick single instances are.

    The plan holds wishes: what is wanted of an instance counts as what it plays, also while the driver still
    drains it, so that a wish is neither repeated nor taken back for being slow.
    """

    def __init__(
        self,
        costing: Costing,
        slo: Slo,
        decisions: DecisionRing,
        pieces: Pieces,
        *,
        tick_s: float,
        reshape_s: float,
        warmth: WarmthSource | None = None,
    ) -> None:
        self.tick_s = tick_s
        self.decisions = decisions
        self._costing = costing
        self._slo = slo
        self._reshape_s = reshape_s
        self._dispatch = emp_dispatch(costing, slo, decisions, pieces, warmth)
        self._meter = DemandMeter(costing.model)
        self._slack = SlackWeight(slo.ttft_s, slo.tpot_s)
        self._tunes_weight = Piece.W_TUNING in pieces
        self._hysteresis = Hysteresis() if Piece.HYSTERESIS in pieces else Hysteresis.none()
        self._reshaper = Reshaper(costing, slo, self._meter, self._hysteresis, pieces)
        self._adjuster = Adjuster(costing, slo, pieces)
        self._plan = Plan()
        self._sound: dict[str, Assignment] = {}  # was wanted last, and leaves no stage to nobody
        self._next_reshape_s = -float("inf")
        self._steps_left = _STEPS_LEARNED

    def place(self, books: Books, now_s: float) -> Placement | None:
        placement = self._dispatch.place(books, now_s)
        if placement is not None:
            self._meter.note_dispatch(books.queued(placement.request_id), placement)
        return placement

    def plan(self, books: Books, now_s: float) -> Plan:
        self._steps_left = _STEPS_LEARNED
        wanted = self._present(books)
        if not wanted:
            self._want(books, {})
            return self._plan
        wanted = self._repaired(books, wanted, now_s)
        if now_s >= self._next_reshape_s:
            self._next_reshape_s = now_s + self._reshape_s
            wanted = self._reshaped(books, wanted, now_s)
        self._want(books, self._adjusted(books, wanted, now_s))
        return self._plan

    # what was measured

    def note_arrival(self, work: Work, now_s: float) -> None:
        self._meter.note_arrival(work, now_s)

    def note_step(self, instance_id: str, shape: StepShape, seconds: float) -> None:  # noqa: ARG002
        if self._steps_left > 0:
            self._steps_left -= 1
            self._costing.model.note_step(shape, seconds)

    def note_encode(self, instance_id: str, num_tokens: int, seconds: float) -> None:  # noqa: ARG002
        self._costing.model.note_encode(num_tokens, seconds)

    def note_first_token(self, work: Work, ttft_s: float) -> None:
        self._dispatch.note_first_token(work, ttft_s)
        if self._tunes_weight:
            self._slack.note_ttft(ttft_s)

    def note_finished(self, work: Work, tpot_s: float) -> None:
        self._meter.note_finished(work, tpot_s)
        if self._tunes_weight:
            self._slack.note_tpot(tpot_s)

    # verbs

    def _present(self, books: Books) -> dict[str, Assignment]:
        """What is wanted of those there are and not drained; a new or pinned instance plays what it plays."""
        wanted: dict[str, Assignment] = {}
        for name, book in books.instances.items():
            if book.is_drained:
                continue
            known = None if book.is_pinned else self._plan.wanted.get(name)
            wanted[name] = known or Assignment(book.roles, book.group)
        self._hysteresis.forget(books.instances.keys())
        return wanted

    def _repaired(self, books: Books, wanted: dict[str, Assignment], now_s: float) -> dict[str, Assignment]:
        """All that are not pinned are coupled where a stage would be played by nobody."""
        if wanted == self._sound:
            return wanted
        try:
            check_assignments(wanted.values())
        except PlanError as error:
            free = [name for name in wanted if not books.instances[name].is_pinned]
            if not free:
                return wanted
            self._say(now_s, "repair", "cluster", f"couples {len(free)} instances: {error}", {})
            self._next_reshape_s = now_s
            return wanted | coupled_layout(free)
        self._sound = wanted
        return wanted

    def _reshaped(self, books: Books, wanted: dict[str, Assignment], now_s: float) -> dict[str, Assignment]:
        reshape = self._reshaper.propose(books, wanted, now_s)
        if reshape is None:
            return wanted
        self._say(now_s, reshape.piece, "cluster", reshape.choice, reshape.numbers)
        return wanted | self._noted(wanted, reshape, now_s)

    def _noted(
        self, wanted: Mapping[str, Assignment], reshape: Reshape, now_s: float
    ) -> dict[str, Assignment]:
        changed = {name: to for name, to in reshape.wanted.items() if wanted[name] != to}
        for name, to in sorted(changed.items()):
            self._hysteresis.note_change(name, now_s)
            self._say(now_s, reshape.piece, name, f"from {wanted[name]} to {to}", reshape.numbers)
        return changed

    def _adjusted(self, books: Books, wanted: dict[str, Assignment], now_s: float) -> dict[str, Assignment]:
        if self._reshaper.is_under_way:
            return wanted
        standings = standings_of(books, wanted, self._costing, self._meter)
        terms = Terms(
            lambda book: not book.is_pinned and self._hysteresis.may_move(book, now_s),
            self._slack.weight if self._tunes_weight else DEFAULT_WEIGHT,
            self._slo.ttft_s,
        )
        for change in self._adjuster.changes(standings, wanted, terms):
            wanted = self._with(books, wanted, change, now_s)
        return wanted

    def _with(
        self, books: Books, wanted: dict[str, Assignment], change: Change, now_s: float
    ) -> dict[str, Assignment]:
        """With the change, unless it would leave a stage to nobody, or does not last under the demand.

        What is there outweighs what is predicted: decode is lent an instance where its batches are full.
        """
        changed = wanted | {change.instance_id: change.to}
        try:
            check_assignments(changed.values())
        except PlanError:
            return wanted
        before, after = (
            layout_name(Counter(each[name] for name in each if not books.instances[name].is_pinned))
            for each in (wanted, changed)
        )
        if not (change.is_loan or self._hysteresis.may_take(after, now_s)):
            return wanted
        if self._reshaper.worsens(wanted, changed) and not self._finds_full_batches(books, wanted, change):
            return wanted
        self._adjuster.made(change, wanted[change.instance_id])
        self._hysteresis.note_change(change.instance_id, now_s)
        if not change.is_loan:
            self._hysteresis.note_form(before, after, now_s)
        choice = f"from {wanted[change.instance_id]} to {change.to}: {change.reason}"
        self._say(now_s, change.piece, change.instance_id, choice, change.numbers)
        return changed

    def _finds_full_batches(self, books: Books, wanted: Mapping[str, Assignment], change: Change) -> bool:
        """Whether the change is a loan to decode, which has more sequences than places in its batches."""
        if not change.is_loan or Stage.DECODE not in change.to.roles:
            return False
        group = [name for name, each in wanted.items() if each.group is change.to.group]
        decoders = [books.instances[name] for name in group if Stage.DECODE in wanted[name].roles]
        num_places = self._costing.profile.max_sequences * len(decoders)
        return sum(book.load.sequences for book in decoders) > num_places

    def _want(self, books: Books, wanted: Mapping[str, Assignment]) -> None:
        """Drained ones, which are not planned with, stay as they are."""
        drained = [book for book in books.instances.values() if book.is_drained]
        if drained:
            wanted = {**wanted, **{book.instance_id: Assignment(book.roles, book.group) for book in drained}}
        if wanted != self._plan.wanted:
            self._plan = Plan(self._plan.version + 1, wanted)

    def _say(self, now_s: float, piece: str, subject: str, choice: str, numbers: Mapping[str, float]) -> None:
        self.decisions.add(Decision(now_s, piece, subject, choice, numbers))
