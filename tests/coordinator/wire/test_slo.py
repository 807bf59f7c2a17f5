from coordinator.policy.scheduler import Slo
from coordinator.slo.report import CallClass, ClassReport, PriorityClass, SloReport, WindowReport
from coordinator.slo.verdict import Verdict
from coordinator.wire.slo import from_slo_report
from core.stages import ModalityGroup
from elasticmm_client.slo import slo_report_from_proto

CALLS = CallClass("acme", ModalityGroup.MULTIMODAL, PriorityClass.HIGH)
COUNTS = ClassReport(CALLS, {Verdict.GOOD: 1, Verdict.LATE: 2, Verdict.SLOW: 3, Verdict.UNSERVED: 4})
WINDOW = WindowReport(60.0, 30.0, (COUNTS,), 6, 100, 25, 90.0, 7.5, 4096)


def test_a_client_reads_what_the_coordinator_counted() -> None:
    read = slo_report_from_proto(from_slo_report(SloReport(Slo(1.0, 0.1, 2.0), 1.5, (WINDOW,))))
    assert (read.ttft_s, read.multimodal_ttft_s, read.tpot_s, read.price_per_hour) == (1.0, 2.0, 0.1, 1.5)
    (window,) = read.windows
    assert (window.window_s, window.covered_s, window.requests_finished) == (60, 30, 6)
    assert (window.prompt_tokens, window.cached_tokens) == (100, 25)
    assert (window.instance_s, window.saved_s, window.saved_bytes) == (90, 7.5, 4096)
    (calls,) = window.classes
    assert (calls.tenant, calls.group, calls.priority) == ("acme", "multimodal", "high")
    assert (calls.good, calls.late, calls.slow, calls.unserved, calls.attainment) == (1, 2, 3, 4, 0.1)


def test_no_price_is_not_a_price_of_zero() -> None:
    slo = Slo(1.0, 0.1)
    assert slo_report_from_proto(from_slo_report(SloReport(slo, None, ()))).price_per_hour is None
    assert slo_report_from_proto(from_slo_report(SloReport(slo, 0.0, ()))).price_per_hour == 0
