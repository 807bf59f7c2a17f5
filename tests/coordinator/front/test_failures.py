"""What gRPC says of a coordinator that does not answer."""

from __future__ import annotations

import grpc
import pytest

from coordinator import errors
from coordinator.front.failures import RETRY_AFTER_S, translated
from coordinator.wire.status import DETAILS_KEY, code_of, details_of

CODES = grpc.StatusCode


def said(code: grpc.StatusCode, reason: str, *metadata: tuple[str, bytes]) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*metadata), reason)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (CODES.UNAVAILABLE, "failed to connect to 10.0.0.1"),
        (CODES.CANCELLED, "10.0.0.1 ends"),
        (CODES.DEADLINE_EXCEEDED, "10.0.0.1 is slow"),
        (CODES.INTERNAL, "RST_STREAM by 10.0.0.1"),
    ],
)
def test_a_loss_is_worth_another_try_and_names_no_address(code: grpc.StatusCode, reason: str) -> None:
    error = translated(said(code, reason))
    assert isinstance(error, errors.UnavailableError)
    assert error.retry_after_s == RETRY_AFTER_S
    assert "10.0.0.1" not in str(error)


def test_other_ends() -> None:
    large = translated(said(CODES.RESOURCE_EXHAUSTED, "Received message larger than max (9 vs. 5)"))
    assert isinstance(large, errors.TooLargeError)
    assert large.field == "messages"
    assert isinstance(translated(said(CODES.INTERNAL, "KeyError: 1")), errors.InternalFailureError)


def test_the_coordinators_own_words_come_first() -> None:
    own = errors.UnavailableError("a stage is missing")
    back = translated(said(code_of(own), str(own), (DETAILS_KEY, details_of(own))))
    assert (str(back), back.retry_after_s) == ("a stage is missing", None)
