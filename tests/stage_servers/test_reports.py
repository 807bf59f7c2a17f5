import logging

import grpc
import pytest

from core.stages import Stage
from stage_servers.reports import Reports


async def test_a_stage_that_failed_is_in_the_log_by_its_request(caplog: pytest.LogCaptureFixture) -> None:
    reports = Reports()
    reports.failed(("r1", 3), Stage.PREFILL, grpc.StatusCode.INTERNAL, "out of blocks")
    (record,) = caplog.records
    assert (record.levelno, record.request_id) == (logging.WARNING, "r1")
    assert record.getMessage() == "request r1: PREFILL failed, out of blocks"
    assert (await reports.next()).failure.message == "out of blocks"


async def test_a_stage_that_ended_is_there_for_those_who_look(caplog: pytest.LogCaptureFixture) -> None:
    reports = Reports()
    with caplog.at_level(logging.DEBUG, "stage_servers"):
        reports.stage_done(("r1", 3), Stage.ENCODE, start_ns=0, end_ns=2_500_000)
    assert [each.getMessage() for each in caplog.records] == ["request r1: ENCODE took 2.5 ms"]
    assert (await reports.next()).stage.end_ns == 2_500_000
