"""Two policy sets side by side, as a message."""

from __future__ import annotations

from coordinator.errors import InvalidFieldError
from coordinator.policy.trials.shares import TrialWish
from coordinator.slo.arm_report import ArmReport, Measure, TrialReport
from coordinator.slo.verdict import Verdict
from elasticmm.v1 import admin_pb2 as pb


def to_wish(request: pb.StartTrialRequest) -> TrialWish:
    """Raises InvalidFieldError."""
    try:
        if request.HasField("share"):
            return TrialWish(request.policy, request.share)
        return TrialWish(request.policy)
    except ValueError as error:
        raise InvalidFieldError("share", str(error).removeprefix("share: ")) from None


def from_trial_report(report: TrialReport) -> pb.TrialReport:
    return pb.TrialReport(
        experiment=report.experiment,
        watched_s=report.watched_s,
        share=report.share,
        arms=[_from_arm(each) for each in report.arms],
        measures=[_from_measure(each) for each in report.measures()],
    )


def _from_arm(arm: ArmReport) -> pb.TrialArm:
    return pb.TrialArm(
        arm=arm.arm.value,
        policy=arm.policy,
        instance_ids=arm.instance_ids,
        good=arm.verdicts[Verdict.GOOD],
        late=arm.verdicts[Verdict.LATE],
        slow=arm.verdicts[Verdict.SLOW],
        unserved=arm.verdicts[Verdict.UNSERVED],
        crossed=arm.num_crossed,
        instance_s=arm.instance_s,
    )


def _from_measure(measure: Measure) -> pb.TrialMeasure:
    change = measure.change
    return pb.TrialMeasure(
        name=measure.name,
        a=measure.a,
        b=measure.b,
        change=None if change is None else change.value,
        low=None if change is None else change.low,
        high=None if change is None else change.high,
    )
