"""The slow loop: shares out instances between groups and picks the form, if that is worth the moves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from coordinator.policy.balancer import balanced, burst_tolerance
from coordinator.policy.books import Books
from coordinator.policy.costing import Costing
from coordinator.policy.demand import Demand, DemandMeter
from coordinator.policy.forms import Forms, Pool, assignments_of, forms_name, layout_name
from coordinator.policy.hysteresis import Hysteresis
from coordinator.policy.layouts import split_forms
from coordinator.policy.matching import matched
from coordinator.policy.outlook import Outlook, OutlookScore, outlook_of
from coordinator.policy.pieces import Piece, Pieces
from coordinator.policy.pins import left_by_pinned
from coordinator.policy.plan import GROUPS, Assignment, PlanError, check_assignments
from coordinator.policy.prediction import Predictor
from coordinator.policy.scheduler import Slo
from coordinator.policy.search import Found, Search
from coordinator.policy.standings import forms_of
from core.stages import COUPLED, ModalityGroup

_MOVE_S = 2.0  # an instance takes no new work for about so long while it drains and switches
_STAY_S = 10.0
_AWAY_SHARE = 0.5  # of the instances change at a time; the others serve meanwhile
Split = dict[ModalityGroup, int]


@dataclass(frozen=True, slots=True)
class Reshape:
    """What some instances are to play from now on."""

    piece: str
    wanted: Mapping[str, Assignment]
    choice: str
    numbers: Mapping[str, float]


class Reshaper:
    """Asked every few seconds; proposes nothing where the present form is about as good."""

    def __init__(
        self,
        costing: Costing,
        slo: Slo,
        meter: DemandMeter,
        hysteresis: Hysteresis,
        pieces: Pieces,
        *,
        backlog_s: float = 5.0,
    ) -> None:
        """`backlog_s`: in so many seconds, or the target of the first token, what waits is to be done."""
        self._model = costing.model
        self._scores = OutlookScore(Predictor(costing, slo, late_yields=Piece.LATE_YIELDS in pieces))
        self._search = Search(costing, self._scores)
        self._meter = meter
        self._hysteresis = hysteresis
        self._pieces = pieces
        self._outlook = Outlook({}, {})  # of all demand and instances
        self._left = dict.fromkeys(GROUPS, 1.0)  # share of it that pinned instances leave to the others
        self._target: Found | None = None
        self._before = 0.0  # score of what the target replaces
        self._count = 0  # of instances that the target is for
        self._backlog_s = max(backlog_s, slo.ttft_s)

    @property
    def is_under_way(self) -> bool:
        """Whether instances are still to change for the form that was chosen last."""
        return self._target is not None

    def propose(self, books: Books, wanted: Mapping[str, Assignment], now_s: float) -> Reshape | None:
        """The next instances to change, for a new form or the one under way."""
        backlog = {group: books.num_waiting(group) / self._backlog_s for group in GROUPS}
        of_all = self._meter.demand(now_s, backlog)
        self._left = left_by_pinned(
            books.instances.values(), {group: self._meter.work(group, now_s) for group in GROUPS}
        )
        demand = {group: each.at_rate(each.rate * self._left[group]) for group, each in of_all.items()}
        free = {name: books.instances[name] for name in wanted if not books.instances[name].is_pinned}
        self._outlook = self._outlook_of(of_all, len(wanted))
        if not demand or not free:
            return None
        is_free = len(free) == len(wanted)
        outlook = self._outlook if is_free else self._outlook_of(demand, len(free))
        self._choose({name: wanted[name] for name in free}, now_s, outlook)
        if self._target is None or len(free) != self._count:
            self._target = None
            return None
        proposal = matched(free, wanted, assignments_of(self._target.forms))
        moving = [name for name in proposal if proposal[name] != wanted[name]]
        if not moving:
            self._target = None
            return None
        chosen = self._next(books, wanted, proposal, moving, now_s)
        return self._reshape(chosen, self._target, len(moving), now_s) if chosen else None

    def _choose(self, free: Mapping[str, Assignment], now_s: float, outlook: Outlook) -> None:
        """Sets the form to go for, where one is enough better than the present one or that under way."""
        count, present = len(free), forms_of(free)
        current = present if self._target is None else self._target.forms
        before = (
            self._scores.score(current, outlook, is_present=True) if current is not None else float("inf")
        )
        if Piece.SEARCH in self._pieces and not self._hysteresis.can_improve(before):
            return  # whatever a search found
        found = self._find(count, present, self._split(count, present, now_s, outlook.demand), outlook)
        if current is not None and assignments_of(found.forms) == assignments_of(current):
            return
        name = layout_name(assignments_of(found.forms))
        if not self._hysteresis.may_take(name, now_s):
            return
        if Piece.SEARCH not in self._pieces:
            is_better = current is None or self._evens_out(current, found.forms, now_s)
        else:
            is_better = self._improves(before, found, outlook)
        if is_better:
            self._target, self._before, self._count = found, before, count
            self._hysteresis.note_form(layout_name(Counter(free.values())), name, now_s)

    def _improves(self, before: float, found: Found, outlook: Outlook) -> bool:
        """By enough, also while instances are away for the change."""
        if not self._hysteresis.improves(before, found.score):
            return False
        meanwhile = outlook._replace(demand=self._with_moves(outlook.demand))
        after = self._scores.score(found.forms, meanwhile)
        return self._hysteresis.improves(before, after)

    def _evens_out(self, current: Forms, proposed: Forms, now_s: float) -> bool:
        """Whether the least burst tolerance rises: by its inverse, the load of the fullest group."""
        if ModalityGroup.SHARED in current or ModalityGroup.SHARED in proposed:
            return True
        work = self._work(now_s)
        loads = [
            max(work[group] / max(1, sizes[group]) for group in GROUPS)
            for sizes in (_sizes(current), _sizes(proposed))
        ]
        return self._hysteresis.improves(*loads)

    def _next(
        self,
        books: Books,
        wanted: Mapping[str, Assignment],
        proposal: Mapping[str, Assignment],
        moving: list[str],
        now_s: float,
    ) -> dict[str, Assignment]:
        """A part of those to move, so that the others serve meanwhile; all at once where a part could not."""
        away = sum(not books.instances[name].is_open for name in wanted)
        room = max(1, int(_AWAY_SHARE * len(proposal))) - away
        able = [name for name in moving if self._hysteresis.may_move(books.instances[name], now_s)]
        if room <= 0:
            return {}
        for part in (able[:room], moving if len(able) == len(moving) else []):
            chosen = {name: proposal[name] for name in part}
            if chosen and _serves({**wanted, **chosen}.values()):
                return chosen
        return {}

    def _outlook_of(self, demand: Demand, num_instances: int) -> Outlook:
        is_ahead = Piece.BALANCER_PROACTIVE in self._pieces
        return outlook_of(demand, num_instances, self._model, with_burst=is_ahead)

    def _with_moves(self, demand: Demand) -> Demand:
        """As if those that move at a time were missing for `_MOVE_S` of `_STAY_S`, which a form stays."""
        factor = 1 / (1 - _AWAY_SHARE * _MOVE_S / _STAY_S)
        return {group: each.at_rate(each.rate * factor) for group, each in demand.items()}

    def worsens(self, before: Mapping[str, Assignment], after: Mapping[str, Assignment]) -> bool:
        """Whether the last demand that was weighed would be served worse; unknown forms are let through."""
        forms, changed = forms_of(before), forms_of(after)
        if not self._outlook.demand or forms is None or changed is None:
            return False
        before_score = self._scores.score(forms, self._outlook, is_present=True)
        return self._scores.score(changed, self._outlook) > before_score

    def _split(self, count: int, present: Forms | None, now_s: float, demand: Demand) -> Split | None:
        """Of instances between groups, where both have demand and there are enough for two."""
        if count < 3 or len(demand) < 2:
            return None
        if Piece.BALANCER_PROACTIVE in self._pieces:
            return balanced(count, self._work(now_s), dict.fromkeys(GROUPS, 1))
        if present is not None and ModalityGroup.SHARED not in present:
            return _sizes(present)
        return _halves(count)

    def _work(self, now_s: float) -> dict[ModalityGroup, float]:
        """In instances, for those that are not pinned."""
        return {group: self._meter.work(group, now_s) * self._left[group] for group in GROUPS}

    def _find(self, count: int, present: Forms | None, split: Split | None, outlook: Outlook) -> Found:
        if Piece.SEARCH in self._pieces:
            neighbours = 1 if Piece.BALANCER_PROACTIVE in self._pieces else 0
            return self._search.best(count, outlook, split, neighbours)
        if count < 3:
            coupled: Forms = {ModalityGroup.SHARED: (Pool(COUPLED, count),)}
            return Found(coupled, self._scores.score(coupled, outlook))
        if split is None:
            split = _halves(count)
        keeps = present is not None and split == _sizes(present)
        forms = (
            present
            if keeps and present is not None
            else split_forms(split[ModalityGroup.TEXT], split[ModalityGroup.MULTIMODAL])
        )
        return Found(forms, self._scores.score(forms, outlook))

    def _reshape(
        self, chosen: Mapping[str, Assignment], found: Found, num_moving: int, now_s: float
    ) -> Reshape:
        work = self._work(now_s)
        numbers = {
            "score_before": self._before,
            "score": found.score,
            "moving": float(len(chosen)),
            "left_to_move": float(num_moving - len(chosen)),
            "text_demand": work[ModalityGroup.TEXT],
            "multimodal_demand": work[ModalityGroup.MULTIMODAL],
        }
        for group, burst in self._outlook.burst.items():
            if burst is not self._outlook.demand.get(group):
                numbers[f"{group.value}_burst_rps"] = burst.rate
        for group in GROUPS:
            if group in found.forms:
                allocated = sum(pool.size for pool in found.forms[group])
                numbers[f"{group.value}_burst_tolerance"] = burst_tolerance(allocated, work[group])
        piece = "search" if Piece.SEARCH in self._pieces else "balancer"
        return Reshape(piece, chosen, f"takes the form {forms_name(found.forms)}", numbers)


def _serves(assignments: Iterable[Assignment]) -> bool:
    try:
        check_assignments(assignments)
    except PlanError:
        return False
    return True


def _sizes(forms: Forms) -> Split:
    return {group: sum(pool.size for pool in forms.get(group, ())) for group in GROUPS}


def _halves(count: int) -> Split:
    return {ModalityGroup.TEXT: count // 2, ModalityGroup.MULTIMODAL: count - count // 2}
