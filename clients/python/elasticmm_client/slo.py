"""How well a cluster met its targets of late, and what that took."""

from __future__ import annotations

from dataclasses import dataclass

from elasticmm.v1 import admin_pb2
from elasticmm_client.roles import GROUPS
from elasticmm_client.trial import TrialReport, trial_report_from_proto


@dataclass(frozen=True, slots=True)
class SloClass:
    """Calls of one tenant, group and class of priority that count; there is at least one."""

    tenant: str  # "other" where there are many
    group: str  # "text" or "multimodal"
    priority: str  # "low", "normal" or "high"
    good: int  # both targets met
    late: int  # first token late
    slow: int  # first token in time, further ones too slow
    unserved: int  # no whole answer, by the cluster's fault

    @property
    def calls(self) -> int:
        return self.good + self.late + self.slow + self.unserved

    @property
    def attainment(self) -> float:
        """The part that met both targets, 0 to 1."""
        return self.good / self.calls


@dataclass(frozen=True, slots=True)
class SloWindow:
    """The last `window_s`, of which `covered_s` were watched."""

    window_s: float
    covered_s: float
    classes: tuple[SloClass, ...]
    requests_finished: int
    prompt_tokens: int  # of the finished ones
    cached_tokens: int  # of those, from a cache
    instance_s: float  # summed over attached instances
    saved_s: float  # device time that cache hits spared
    saved_bytes: int  # that they found

    @property
    def instance_s_per_thousand(self) -> float | None:
        """Instance-seconds of a thousand finished requests; None where none finished."""
        return self.instance_s * 1000 / self.requests_finished if self.requests_finished else None


@dataclass(frozen=True, slots=True)
class SloReport:
    """Windows from the shortest to the longest."""

    ttft_s: float
    multimodal_ttft_s: float
    tpot_s: float
    price_per_hour: float | None  # of one instance, in US dollars; None: the cluster's profile has none
    windows: tuple[SloWindow, ...]
    trial: TrialReport | None = None  # None: none runs

    def price(self, instance_s: float | None) -> float | None:
        """Of so many instance-seconds, in US dollars; None where either is not known."""
        if instance_s is None or self.price_per_hour is None:
            return None
        return instance_s / 3600 * self.price_per_hour


def slo_report_from_proto(message: admin_pb2.GetSloReportResponse) -> SloReport:
    return SloReport(
        ttft_s=message.ttft_s,
        multimodal_ttft_s=message.multimodal_ttft_s,
        tpot_s=message.tpot_s,
        price_per_hour=message.price_per_hour if message.HasField("price_per_hour") else None,
        windows=tuple(_window(each) for each in message.windows),
        trial=trial_report_from_proto(message.trial) if message.HasField("trial") else None,
    )


def _window(message: admin_pb2.SloWindow) -> SloWindow:
    return SloWindow(
        window_s=message.window_s,
        covered_s=message.covered_s,
        classes=tuple(_class(each) for each in message.classes),
        requests_finished=message.requests_finished,
        prompt_tokens=message.prompt_tokens,
        cached_tokens=message.cached_tokens,
        instance_s=message.instance_s,
        saved_s=message.saved_s,
        saved_bytes=message.saved_bytes,
    )


def _class(message: admin_pb2.SloClass) -> SloClass:
    return SloClass(
        tenant=message.tenant,
        group=GROUPS[message.group],
        priority=message.priority,
        good=message.good,
        late=message.late,
        slow=message.slow,
        unserved=message.unserved,
    )
