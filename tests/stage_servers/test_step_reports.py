"""What the engine gave up is reported with whom it is to blame on."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from core.costs import StepShape
from elasticmm.v1 import stage_control_pb2
from stage_servers.engine.records import SequenceFailure, StepOutput
from stage_servers.reports import Key, Reports
from stage_servers.step_reports import StepReports


class Prefill:
    """In the place of a PrefillStage that has no hand-over of the sequence."""

    started: dict[Key, Any] = {}  # noqa: RUF012

    def failed(self, key: Key, reason: str) -> bool:  # noqa: ARG002
        return False


@pytest.mark.parametrize(
    ("is_retryable", "field", "code"),
    [
        (True, "", grpc.StatusCode.ABORTED),
        (False, "", grpc.StatusCode.INTERNAL),
        (False, "format.regex", grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_failures(is_retryable: bool, field: str, code: grpc.StatusCode) -> None:
    sent: list[stage_control_pb2.StageMessage] = []
    ended: list[Key] = []
    reports = Reports()
    reports.send = sent.append  # type: ignore[method-assign]
    steps = StepReports(
        reports,
        Prefill(),  # type: ignore[arg-type]
        load=stage_control_pb2.Load,
        is_prefilling=lambda _: False,
        on_end=ended.append,
    )
    failure = SequenceFailure(("r", 2), "why", is_retryable, field)
    steps.step_done(StepOutput(failed=(failure,), shape=StepShape()), 0)
    (message,) = sent
    assert (message.failure.code, message.failure.field, message.failure.message) == (
        code.value[0],
        field,
        "why",
    )
    assert ended == [("r", 2)]
