"""What the coordinator says is what one in front of it reads."""

from __future__ import annotations

import pytest

from coordinator.events import AcceptedEvent, Event, FinishedEvent, StageSpan, TokensEvent, Usage
from coordinator.state import ServedDescription
from coordinator.wire.answers import to_description, to_event
from coordinator.wire.inference import from_description, from_event
from core.sequence import FinishReason, TokenLogprobs
from core.stages import Stage
from elasticmm.v1 import inference_pb2 as pb

LOGPROBS = TokenLogprobs(-0.5, ((3, -0.5), (4, float("-inf"))))
SPANS = tuple(StageSpan(stage, "i0", 0.0, 2.5, "shm") for stage in Stage)
EVENTS = [
    AcceptedEvent("r", "m", 2**64 - 1, 0),
    TokensEvent(0, (3, 0), "", (LOGPROBS, TokenLogprobs(0.0, ()))),
    TokensEvent(7, (2**32 - 1,), "ä"),
    FinishedEvent(FinishReason.STOP, "end", Usage(9, 3, 4, 2, 1), SPANS),
    FinishedEvent(FinishReason.LENGTH, "", Usage(0, 0, 0, 0, 0), ()),
]


@pytest.mark.parametrize("event", EVENTS)
def test_events(event: Event) -> None:
    assert to_event(pb.GenerateEvent.FromString(from_event(event).SerializeToString())) == event


def test_what_a_later_version_says_is_passed_over() -> None:
    assert to_event(pb.GenerateEvent()) is None
    later = pb.Finished(stages=[pb.StageSpan(instance_id="i0"), pb.StageSpan(stage=pb.STAGE_DECODE)])
    found = to_event(pb.GenerateEvent(finished=later))
    assert isinstance(found, FinishedEvent)
    assert (found.reason, len(found.stages)) == (FinishReason.STOP, 1)


def test_descriptions() -> None:
    description = ServedDescription("m", "h:1", 10, 20, 30, 40, 5, 0.25, 0.5, 7)
    assert to_description(from_description(description)) == description
