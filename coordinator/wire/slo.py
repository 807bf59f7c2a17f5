"""The SLO report as a message."""

from __future__ import annotations

from coordinator.slo.arm_report import TrialReport
from coordinator.slo.report import ClassReport, SloReport, WindowReport
from coordinator.slo.verdict import Verdict
from coordinator.wire.stages import from_group
from coordinator.wire.trial import from_trial_report
from core.stages import ModalityGroup
from elasticmm.v1 import admin_pb2 as pb


def from_slo_report(report: SloReport, trial: TrialReport | None = None) -> pb.GetSloReportResponse:
    return pb.GetSloReportResponse(
        ttft_s=report.slo.group_ttft_s(ModalityGroup.TEXT),
        multimodal_ttft_s=report.slo.group_ttft_s(ModalityGroup.MULTIMODAL),
        tpot_s=report.slo.tpot_s,
        price_per_hour=report.price_per_hour,
        windows=[_from_window(each) for each in report.windows],
        trial=None if trial is None else from_trial_report(trial),
    )


def _from_window(window: WindowReport) -> pb.SloWindow:
    return pb.SloWindow(
        window_s=window.window_s,
        covered_s=window.covered_s,
        classes=[_from_class(each) for each in window.classes],
        requests_finished=window.num_finished,
        prompt_tokens=window.prompt_tokens,
        cached_tokens=window.cached_tokens,
        instance_s=window.instance_s,
        saved_s=window.saved_s,
        saved_bytes=window.saved_bytes,
    )


def _from_class(found: ClassReport) -> pb.SloClass:
    return pb.SloClass(
        tenant=found.calls.tenant,
        group=from_group(found.calls.group),
        priority=found.calls.priority.value,
        good=found.verdicts[Verdict.GOOD],
        late=found.verdicts[Verdict.LATE],
        slow=found.verdicts[Verdict.SLOW],
        unserved=found.verdicts[Verdict.UNSERVED],
    )
