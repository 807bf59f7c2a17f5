"""What a coordinator says, as one in front of it reads it: the way back of wire.inference."""

from __future__ import annotations

from coordinator.events import AcceptedEvent, Event, FinishedEvent, StageSpan, TokensEvent, Usage
from coordinator.state import ServedDescription
from coordinator.wire.inference import to_finish, to_logprobs, to_stage
from core.sequence import FinishReason
from elasticmm.v1 import inference_pb2 as pb


def to_event(message: pb.GenerateEvent) -> Event | None:
    """None for a kind that this version does not know."""
    match message.WhichOneof("event"):
        case "accepted":
            return _to_accepted(message.accepted)
        case "tokens":
            return _to_tokens(message.tokens)
        case "finished":
            return _to_finished(message.finished)
        case _:
            return None


def to_description(message: pb.GetModelResponse) -> ServedDescription:
    limits = message.limits
    return ServedDescription(
        model=message.model,
        media_endpoint=message.media_endpoint,
        context_tokens=limits.context_tokens,
        message_bytes=limits.message_bytes,
        media_bytes=limits.media_bytes,
        media_pixels=limits.media_pixels,
        media_per_request=limits.media_per_request,
        media_ttl_s=limits.media_ttl.ToNanoseconds() / 1e9,
        resume_ttl_s=limits.resume_ttl.ToNanoseconds() / 1e9,
        resume_tokens=limits.resume_tokens,
    )


def _to_accepted(message: pb.Accepted) -> AcceptedEvent:
    return AcceptedEvent(message.request_id, message.model, message.seed, message.prompt_tokens)


def _to_tokens(message: pb.Tokens) -> TokensEvent:
    return TokensEvent(
        message.first_index,
        tuple(message.token_ids),
        message.text,
        tuple(to_logprobs(each) for each in message.logprobs),
    )


def _to_finished(message: pb.Finished) -> FinishedEvent:
    usage = message.usage
    return FinishedEvent(
        # One that is not known here is nearest to a stop: there is no more to come.
        to_finish(message.reason) or FinishReason.STOP,
        message.stop_string,
        Usage(
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.media_tokens,
            usage.cached_tokens,
            usage.cached_media,
        ),
        tuple(span for each in message.stages if (span := _to_span(each)) is not None),
    )


def _to_span(message: pb.StageSpan) -> StageSpan | None:
    stage = to_stage(message.stage)
    if stage is None:
        return None
    return StageSpan(stage, message.instance_id, message.start_ms, message.end_ms, message.transport)
