"""What a second policy set does or would do, beside the first one, as plain JSON values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from coordinator.dashboard.decisions import decisions_json
from coordinator.policy.decisions import Decision
from coordinator.policy.trials.shadow_report import Difference, ShadowReport
from coordinator.slo.arm_report import ArmReport, Measure, TrialReport


def trial_json(report: TrialReport) -> dict[str, Any]:
    return {
        "experiment": report.experiment,
        "watched_s": report.watched_s,
        "share": report.share,
        "arms": [_arm(each) for each in report.arms],
        "measures": [_measure(each) for each in report.measures()],
    }


def shadow_json(report: ShadowReport, decisions: Iterable[Decision], now_s: float) -> dict[str, Any]:
    """`decisions`: its own, which nobody acted on."""
    return {
        "policy": report.policy,
        "watched_s": report.watched_s,
        "compared": report.num_compared,
        "elsewhere": report.dispatches[Difference.ELSEWHERE],
        "held": report.dispatches[Difference.HELD],
        "skipped": report.num_skipped,
        "other_encode": report.num_other_encode,
        "other_prefill": report.num_other_prefill,
        "other_decode": report.num_other_decode,
        "predicted": report.num_predicted,
        "acting_first_s": report.acting_first_s,
        "shadow_first_s": report.shadow_first_s,
        "acting_changes": report.num_acting_changes,
        "shadow_changes": report.num_shadow_changes,
        "wanted": [
            {"instance": name, "acting": str(acting), "shadow": str(shadow)}
            for name, (acting, shadow) in report.wanted.items()
        ],
        "spent_s": report.spent_s,
        "failure": report.failure,
        "decisions": decisions_json(decisions, now_s),
    }


def _arm(arm: ArmReport) -> dict[str, Any]:
    return {
        "arm": arm.arm.value,
        "policy": arm.policy,
        "instances": list(arm.instance_ids),
        **{verdict.value: count for verdict, count in arm.verdicts.items()},
        "crossed": arm.num_crossed,
        "instance_s": arm.instance_s,
    }


def _measure(measure: Measure) -> dict[str, Any]:
    change = measure.change
    return {
        "name": measure.name,
        "a": measure.a,
        "b": measure.b,
        "change": None if change is None else change.value,
        "low": None if change is None else change.low,
        "high": None if change is None else change.high,
    }
