"""How a policy set that does not act would have decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from elasticmm.v1 import admin_pb2
from elasticmm_client.plan import Assignment, assignment_from_proto


@dataclass(frozen=True, slots=True)
class ShadowReport:
    """Since the shadow's start, held against the acting policy set."""

    policy: str
    watched_s: float
    same: int  # dispatches that it would have made alike
    elsewhere: int  # to another instance, for a stage at least
    held: int  # that it would have let wait
    skipped: int  # that were not compared, for want of time
    other_encode: int  # of those elsewhere
    other_prefill: int
    other_decode: int
    predicted: int  # dispatches for which both predicted the time to the first token
    acting_first_s: float | None  # the mean of that, as the acting set said; None without any
    shadow_first_s: float | None  # as the shadow said of its own choice
    acting_changes: int  # of what an instance was to play
    shadow_changes: int
    wanted: Mapping[str, tuple[Assignment, Assignment]]  # by instance: acting and shadow, where they differ
    spent_s: float  # of the coordinator's time
    failure: str  # why it was stopped before its time; empty: it was not

    @property
    def compared(self) -> int:
        return self.same + self.elsewhere + self.held

    @property
    def differing_share(self) -> float | None:
        """Of the dispatches compared, 0 to 1; None without any."""
        return (self.elsewhere + self.held) / self.compared if self.compared else None


def shadow_report_from_proto(message: admin_pb2.ShadowReport) -> ShadowReport:
    return ShadowReport(
        policy=message.policy,
        watched_s=message.watched_s,
        same=message.same,
        elsewhere=message.elsewhere,
        held=message.held,
        skipped=message.skipped,
        other_encode=message.other_encode,
        other_prefill=message.other_prefill,
        other_decode=message.other_decode,
        predicted=message.predicted,
        acting_first_s=message.acting_first_s if message.HasField("acting_first_s") else None,
        shadow_first_s=message.shadow_first_s if message.HasField("shadow_first_s") else None,
        acting_changes=message.acting_changes,
        shadow_changes=message.shadow_changes,
        wanted={
            each.instance_id: (assignment_from_proto(each.acting), assignment_from_proto(each.shadow))
            for each in message.wanted
        },
        spent_s=message.spent_s,
        failure=message.failure,
    )
