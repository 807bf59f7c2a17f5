"""What a shadow would have done, as a message."""

from __future__ import annotations

from coordinator.policy.trials.shadow_report import Difference, ShadowReport
from coordinator.wire.plan import from_assignment
from elasticmm.v1 import admin_pb2 as pb


def from_shadow_report(report: ShadowReport) -> pb.ShadowReport:
    return pb.ShadowReport(
        policy=report.policy,
        watched_s=report.watched_s,
        same=report.dispatches[Difference.NONE],
        elsewhere=report.dispatches[Difference.ELSEWHERE],
        held=report.dispatches[Difference.HELD],
        skipped=report.num_skipped,
        other_encode=report.num_other_encode,
        other_prefill=report.num_other_prefill,
        other_decode=report.num_other_decode,
        predicted=report.num_predicted,
        acting_first_s=report.acting_first_s,
        shadow_first_s=report.shadow_first_s,
        acting_changes=report.num_acting_changes,
        shadow_changes=report.num_shadow_changes,
        wanted=[
            pb.WantedByBoth(instance_id=name, acting=from_assignment(acting), shadow=from_assignment(shadow))
            for name, (acting, shadow) in report.wanted.items()
        ],
        spent_s=report.spent_s or 0.0,
        failure=report.failure,
    )
