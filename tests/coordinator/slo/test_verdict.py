import pytest

from coordinator.errors import InvalidFieldError, OverloadedError, ServiceError
from coordinator.policy.scheduler import Slo
from coordinator.slo.verdict import Verdict, verdict_of_call, verdict_of_end
from core.lifecycle import RequestState
from core.stages import ModalityGroup
from tests.coordinator.ends import make_call, make_end

SLO = Slo(ttft_s=0.5, tpot_s=0.1, multimodal_ttft_s=1.0)


@pytest.mark.parametrize(
    ("end", "verdict"),
    [
        (make_end(), Verdict.GOOD),
        (make_end(first_token_s=0.6), Verdict.LATE),
        (make_end(first_token_s=0.6, group=ModalityGroup.MULTIMODAL), Verdict.GOOD),
        (make_end(took_s=0.95), Verdict.SLOW),
        (make_end(state=RequestState.FAILED, finish=None), None),
        (make_end(state=RequestState.CANCELLED, finish=None), None),
    ],
)
def test_ends_are_judged_by_both_targets(end, verdict: Verdict | None) -> None:
    assert verdict_of_end(end, SLO) is verdict


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (None, None),
        (InvalidFieldError("tenant", "is too long"), None),
        (OverloadedError("full", 1.0), Verdict.UNSERVED),
        (RuntimeError("a bug"), Verdict.UNSERVED),
    ],
)
def test_errors_count_where_they_are_ours(error: ServiceError | None, verdict: Verdict | None) -> None:
    assert verdict_of_call(make_call(error)) is verdict
