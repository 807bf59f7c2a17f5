"""Whether a call was served as its targets say."""

from __future__ import annotations

from enum import Enum

from coordinator.errors import (
    DeadlinePassedError,
    InternalFailureError,
    OverloadedError,
    ServiceError,
    UnavailableError,
)
from coordinator.observer import CallEnd, RequestEnd
from coordinator.policy.scheduler import Slo
from core.lifecycle import RequestState
from core.stages import ModalityGroup

# Errors that are the cluster's. Others are the client's: such a call met or missed nothing.
_OURS = (OverloadedError, UnavailableError, DeadlinePassedError, InternalFailureError)


class Verdict(Enum):
    """Of a call that counts; the value names it in metrics."""

    GOOD = "good"
    LATE = "late"  # its first token
    SLOW = "slow"  # its further tokens, the first one in time
    UNSERVED = "unserved"  # no whole answer


def verdict_of_end(end: RequestEnd, slo: Slo) -> Verdict | None:
    """None: it did not finish, which `verdict_of_call` judges."""
    if end.state is not RequestState.FINISHED or end.first_token_s is None:
        return None
    return verdict_of(slo, end.group, end.first_token_s, end.per_token_s)


def verdict_of(slo: Slo, group: ModalityGroup, first_token_s: float, per_token_s: float | None) -> Verdict:
    """Of an answer that is whole; `per_token_s` None: it has one token."""
    if first_token_s > slo.group_ttft_s(group):
        return Verdict.LATE
    return Verdict.SLOW if per_token_s is not None and per_token_s > slo.tpot_s else Verdict.GOOD


def verdict_of_call(call: CallEnd) -> Verdict | None:
    """None: the client went away, or asked for what it may not have."""
    error = call.error
    is_ours = isinstance(error, _OURS) or not isinstance(error, ServiceError)
    return Verdict.UNSERVED if error is not None and is_ours else None
