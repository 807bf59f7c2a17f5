"""Two policy sets side by side on shares of the instances."""

from __future__ import annotations

from dataclasses import dataclass

from elasticmm.v1 import admin_pb2


@dataclass(frozen=True, slots=True)
class TrialArm:
    """Only its own requests that it served itself count, but for `crossed`."""

    arm: str  # "a", the main set, or "b", the one that is tried
    policy: str
    instance_ids: tuple[str, ...]  # now
    good: int  # both targets met
    late: int  # first token late
    slow: int  # first token in time, further ones too slow
    unserved: int  # no whole answer, by the cluster's fault
    crossed: int  # its requests that the other arm served, because it could not
    instance_s: float


@dataclass(frozen=True, slots=True)
class TrialMeasure:
    """A figure of both arms; None where too little was measured."""

    name: str  # unit in the name
    a: float | None
    b: float | None
    change: float | None  # b minus a, and the limits of its 95% confidence interval
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class TrialReport:
    """Since the start of the trial."""

    experiment: str  # by which requests are divided
    watched_s: float
    share: float  # of the instances, that b was to get
    arms: tuple[TrialArm, ...]
    measures: tuple[TrialMeasure, ...]


def trial_report_from_proto(message: admin_pb2.TrialReport) -> TrialReport:
    return TrialReport(
        experiment=message.experiment,
        watched_s=message.watched_s,
        share=message.share,
        arms=tuple(_arm(each) for each in message.arms),
        measures=tuple(_measure(each) for each in message.measures),
    )


def _arm(message: admin_pb2.TrialArm) -> TrialArm:
    return TrialArm(
        arm=message.arm,
        policy=message.policy,
        instance_ids=tuple(message.instance_ids),
        good=message.good,
        late=message.late,
        slow=message.slow,
        unserved=message.unserved,
        crossed=message.crossed,
        instance_s=message.instance_s,
    )


def _measure(message: admin_pb2.TrialMeasure) -> TrialMeasure:
    return TrialMeasure(
        name=message.name,
        a=message.a if message.HasField("a") else None,
        b=message.b if message.HasField("b") else None,
        change=message.change if message.HasField("change") else None,
        low=message.low if message.HasField("low") else None,
        high=message.high if message.HasField("high") else None,
    )
