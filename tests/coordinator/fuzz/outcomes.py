"""What a door may say, whatever it was asked."""

from __future__ import annotations

import grpc
from google.protobuf.message import Message

from elasticmm.v1 import inference_pb2 as pb
from tests.coordinator.conftest import Failure, failure_of

_CODES = grpc.StatusCode
# The caller's own doing; anything else is the server's fault.
REFUSALS = frozenset(
    {
        _CODES.INVALID_ARGUMENT,
        _CODES.NOT_FOUND,
        _CODES.ALREADY_EXISTS,
        _CODES.PERMISSION_DENIED,
        _CODES.RESOURCE_EXHAUSTED,
        _CODES.OUT_OF_RANGE,
        _CODES.DEADLINE_EXCEEDED,
        _CODES.UNAUTHENTICATED,
    }
)
# These name a field, but for what is no message at all.
_OF_A_FIELD = frozenset(
    {
        _CODES.INVALID_ARGUMENT,
        _CODES.NOT_FOUND,
        _CODES.ALREADY_EXISTS,
        _CODES.PERMISSION_DENIED,
        _CODES.OUT_OF_RANGE,
    }
)
UNREADABLE = "the message cannot be read"
_TOO_LARGE = "larger than max"


def check_refusal(error: grpc.RpcError) -> Failure:
    """It is the caller's fault, and says what is wrong."""
    failure = failure_of(error)
    assert failure.code in REFUSALS, failure
    assert failure.message, failure
    is_unreadable = failure.message.startswith(UNREADABLE)
    if failure.code in _OF_A_FIELD and not is_unreadable:
        assert failure.field, failure
        assert failure.message.startswith(f"{failure.field}: "), failure
    if failure.code is _CODES.DEADLINE_EXCEEDED:
        assert failure.message.startswith("deadline of "), "not the request's own: it was stuck"
    if failure.code is _CODES.RESOURCE_EXHAUSTED:
        assert failure.field or failure.retry_after_s or _TOO_LARGE in failure.message.lower(), failure
    return failure


def check_events(events: list[Message]) -> None:
    """One Accepted, tokens without gap, one Finished."""
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds[0] == "accepted"
    assert kinds[-1] == "finished"
    assert set(kinds[1:-1]) <= {"tokens"}
    next_index = 0
    for event in events[1:-1]:
        assert isinstance(event, pb.GenerateEvent)
        assert event.tokens.first_index == next_index
        next_index += len(event.tokens.token_ids)
    finished = events[-1]
    assert isinstance(finished, pb.GenerateEvent)
    assert finished.finished.usage.completion_tokens == next_index
