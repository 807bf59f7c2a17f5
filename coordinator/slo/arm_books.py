"""Keeps what the two arms of an experiment are compared by."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from coordinator.observer import CallEnd, RequestEnd
from coordinator.policy.scheduler import Slo
from coordinator.policy.seat import Arm, Seat
from coordinator.policy.trials.trial import Trial
from coordinator.slo.arm_report import ArmReport, TrialReport
from coordinator.slo.samples import NewestSamples
from coordinator.slo.verdict import Verdict, verdict_of_call, verdict_of_end
from core.clock import Clock
from core.lifecycle import RequestState

_SAMPLES = 10_000  # of each arm: the newest
_UNFINISHED = 1024  # whose calls have not said why


@dataclass(slots=True)
class _Tally:
    verdicts: Counter[Verdict] = field(default_factory=Counter)
    num_crossed: int = 0
    ttft_s: NewestSamples = field(default_factory=lambda: NewestSamples(_SAMPLES))
    tpot_s: NewestSamples = field(default_factory=lambda: NewestSamples(_SAMPLES))


class ArmBooks:
    """A RequestObserver; keeps nothing while no experiment runs."""

    def __init__(self, slo: Slo, clock: Clock) -> None:
        self._slo = slo
        self._clock = clock
        self._trial: Trial | None = None
        self._tallies: dict[Arm, _Tally] = {}
        self._unfinished: dict[str, Seat] = {}  # ended, until their calls say whose fault it was

    def begin(self, trial: Trial) -> None:
        self._trial = trial
        self._tallies = {arm: _Tally() for arm in Arm}

    def end(self) -> None:
        self._trial = None
        self._tallies.clear()
        self._unfinished.clear()

    def on_end(self, end: RequestEnd) -> None:
        seat = end.seat
        if self._trial is None or seat is None or seat.experiment != self._trial.experiment:
            return
        if end.state is not RequestState.FINISHED:
            self._keep(end.request_id, seat)
            return
        self._judge(seat, verdict_of_end(end, self._slo))
        if not seat.has_crossed:
            tally = self._tallies[seat.arm]
            if end.first_token_s is not None:
                tally.ttft_s.add(end.first_token_s)
            if end.per_token_s is not None:
                tally.tpot_s.add(end.per_token_s)

    def on_unserved(self, call: CallEnd) -> None:
        seat = self._unfinished.pop(call.request_id, None)
        if seat is not None:
            self._judge(seat, verdict_of_call(call))

    def report(self) -> TrialReport | None:
        """None: no experiment runs."""
        if self._trial is None:
            return None
        trial, now_s = self._trial, self._clock.now_s()
        a, b = (self._arm_report(trial, arm, now_s) for arm in Arm)
        return TrialReport(trial.experiment, now_s - trial.since_s, trial.share, (a, b))

    def _keep(self, request_id: str, seat: Seat) -> None:
        if len(self._unfinished) >= _UNFINISHED:
            del self._unfinished[next(iter(self._unfinished))]
        self._unfinished[request_id] = seat

    def _judge(self, seat: Seat, verdict: Verdict | None) -> None:
        if verdict is None:
            return
        if seat.has_crossed:
            self._tallies[seat.home].num_crossed += 1
        else:
            self._tallies[seat.arm].verdicts[verdict] += 1

    def _arm_report(self, trial: Trial, arm: Arm, now_s: float) -> ArmReport:
        tally = self._tallies[arm]
        return ArmReport(
            arm=arm,
            policy=trial.policy(arm),
            instance_ids=tuple(trial.instances(arm)),
            verdicts={verdict: tally.verdicts[verdict] for verdict in Verdict},
            num_crossed=tally.num_crossed,
            instance_s=trial.instance_s(arm, now_s),
            ttft_s=tally.ttft_s.ascending(),
            tpot_s=tally.tpot_s.ascending(),
        )
