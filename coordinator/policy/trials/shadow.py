"""A policy set that sees what the acting one sees, and decides without acting."""

from __future__ import annotations

from collections.abc import Callable

from coordinator.policy.books import Books
from coordinator.policy.decisions import Decision
from coordinator.policy.plan import Assignment, Plan
from coordinator.policy.scheduler import Scheduler
from coordinator.policy.trials.part import PartOfBooks
from coordinator.policy.trials.shadow_report import (
    Difference,
    DispatchTally,
    PlanTally,
    ShadowReport,
)
from coordinator.policy.trials.time_share import TimeShare
from coordinator.policy.view import Placement

DIFFERENCE = "difference"  # the piece under which differing dispatches are kept
_FIRST_TOKEN = "first_token_in_s"  # as dispatch names its prediction


class Shadow:
    """Asked about every request that the acting set dispatches, before that is applied: where would it go?

    What else waits it does not see then, so that the order of requests is the acting set's; its plans see all
    that waits. Its decisions stay in its own ring. A shadow that raises is stopped, and says why.
    """

    def __init__(
        self,
        policy: str,
        scheduler: Scheduler,
        books: Books,
        now_s: float,
        *,
        time: TimeShare | None = None,
    ) -> None:
        """The scheduler shares nothing with the acting one's. `time` None: as much as it takes."""
        self.policy = policy
        self.decisions = scheduler.decisions
        self._scheduler = scheduler
        self._books = books
        self._alone = PartOfBooks(books)
        self._since_s = now_s
        self._time = time
        self._dispatches = DispatchTally()
        self._acting_plan, self._shadow_plan = PlanTally(), PlanTally()
        self._failure = ""

    def placed(self, placement: Placement, said: Decision | None, now_s: float) -> None:
        """The acting set dispatches a request that waits yet; `said` is its decision."""
        if not self._may_take_time:
            self._dispatches.num_skipped += 1
            return
        self._guarded(lambda: self._compare(placement, said, now_s))

    def planned(self, plan: Plan, now_s: float) -> None:
        """The acting set has this plan."""
        if self._may_take_time:
            self._guarded(lambda: self._compare_plans(plan, now_s))

    def tell(self, note: Callable[[Scheduler], None], *, may_be_skipped: bool = False) -> None:
        """What the acting set is told of, by its `note_…` methods."""
        if self._may_take_time or not may_be_skipped:
            self._guarded(lambda: note(self._scheduler))

    def report(self, now_s: float) -> ShadowReport:
        found, others = self._dispatches, self._dispatches.others
        acting, shadow = self._acting_plan.wanted, self._shadow_plan.wanted
        count = found.num_predicted
        return ShadowReport(
            policy=self.policy,
            watched_s=now_s - self._since_s,
            dispatches={each: found.differences[each] for each in Difference},
            num_skipped=found.num_skipped,
            num_other_encode=others["encode"],
            num_other_prefill=others["prefill"],
            num_other_decode=others["decode"],
            num_predicted=count,
            acting_first_s=found.acting_s / count if count else None,
            shadow_first_s=found.shadow_s / count if count else None,
            num_acting_changes=self._acting_plan.num_changes,
            num_shadow_changes=self._shadow_plan.num_changes,
            wanted={
                name: (acting[name], shadow[name])
                for name in sorted(acting.keys() & shadow.keys())
                if acting[name] != shadow[name]
            },
            spent_s=None if self._time is None else self._time.spent_s,
            failure=self._failure,
        )

    # verbs

    @property
    def _may_take_time(self) -> bool:
        return self._time is None or self._time.has_room

    def _guarded(self, act: Callable[[], None]) -> None:
        """Whatever it does, the acting set goes on, and its time is counted."""
        if self._failure:
            return
        start_s = 0.0 if self._time is None else self._time.now_s()
        try:
            act()
        except Exception as error:
            self._failure = f"{type(error).__name__}: {error}"
        if self._time is not None:
            self._time.spend(self._time.now_s() - start_s)

    def _compare(self, acting: Placement, said: Decision | None, now_s: float) -> None:
        work, alone = self._books.queued(acting.request_id), self._alone
        if alone.is_behind:
            alone.show()
        alone.queue(work)
        try:
            chosen = self._scheduler.place(alone, now_s)
        finally:
            alone.end(work)
        own = None if chosen is None else self.decisions.latest
        difference = self._dispatches.note(acting, chosen)
        acting_s, shadow_s = _first_s(said), _first_s(own)
        self._dispatches.note_predictions(acting_s, shadow_s)
        if difference is not Difference.NONE:
            self._keep(acting, chosen, {"acting_first_s": acting_s, "shadow_first_s": shadow_s}, now_s)

    def _keep(
        self, acting: Placement, chosen: Placement | None, seconds: dict[str, float | None], now_s: float
    ) -> None:
        shadow = "would let it wait" if chosen is None else f"would take {_words(chosen)}"
        numbers = {name: value for name, value in seconds.items() if value is not None}
        choice = f"goes to {_words(acting)}; the shadow {shadow}"
        self.decisions.add(Decision(now_s, DIFFERENCE, acting.request_id, choice, numbers))

    def _compare_plans(self, plan: Plan, now_s: float) -> None:
        present = {name: Assignment(book.roles, book.group) for name, book in self._books.instances.items()}
        self._acting_plan.note(plan.wanted, present)
        self._shadow_plan.note(self._scheduler.plan(self._books, now_s).wanted, present)


def _first_s(said: Decision | None) -> float | None:
    return None if said is None else said.numbers.get(_FIRST_TOKEN)


def _words(placement: Placement) -> str:
    encode = f", encode {' '.join(placement.encode)}" if placement.encode else ""
    return f"prefill {placement.prefill}, decode {placement.decode}{encode}"
