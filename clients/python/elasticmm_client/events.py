"""What a stream yields: one Accepted, Tokens in order of index, one Finished."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from elasticmm.v1 import inference_pb2 as pb

FinishReason = Literal["stop", "length"]
StageName = Literal["encode", "prefill", "decode"]


@dataclass(frozen=True, slots=True)
class Alternative:
    """A token that could have been chosen, with its log probability."""

    token_id: int
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Log probability of the chosen token and of its best alternatives, best first."""

    logprob: float
    top: tuple[Alternative, ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens spent: prompt (media included), answer, and of the prompt: media and cached ones.

    cached_media: pictures that did not have to be encoded.
    """

    prompt_tokens: int
    completion_tokens: int
    media_tokens: int
    cached_tokens: int
    cached_media: int


@dataclass(frozen=True, slots=True)
class StageSpan:
    """Which instance did a stage, in milliseconds since the request arrived."""

    stage: StageName
    instance: str
    start_ms: float
    end_ms: float
    transport: str = ""  # how the result went on: "local", a transport (such as "shm"), "" nowhere


@dataclass(frozen=True, slots=True)
class Accepted:
    """The request was accepted; `seed` is the one in use."""

    request_id: str
    model: str
    seed: int
    prompt_tokens: int

    @property
    def text(self) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class Tokens:
    """The next tokens. `text` may be empty while a character is incomplete."""

    first_index: int
    token_ids: tuple[int, ...]
    text: str
    logprobs: tuple[TokenLogprobs, ...] = ()


@dataclass(frozen=True, slots=True)
class Finished:
    """The answer ended; `stop_string` is the one that was met, None if none was."""

    reason: FinishReason
    stop_string: str | None
    usage: Usage
    stages: tuple[StageSpan, ...]

    @property
    def text(self) -> str:
        return ""


Event = Accepted | Tokens | Finished

_REASONS: dict[int, FinishReason] = {pb.FINISH_REASON_STOP: "stop", pb.FINISH_REASON_LENGTH: "length"}
_STAGES: dict[int, StageName] = {
    pb.STAGE_ENCODE: "encode",
    pb.STAGE_PREFILL: "prefill",
    pb.STAGE_DECODE: "decode",
}


def event_from_proto(message: pb.GenerateEvent) -> Event | None:
    """The event, or None for a kind that a newer server knows and we do not."""
    match message.WhichOneof("event"):
        case "accepted":
            return _accepted(message.accepted)
        case "tokens":
            return _tokens(message.tokens)
        case "finished":
            return _finished(message.finished)
    return None


def _accepted(message: pb.Accepted) -> Accepted:
    return Accepted(message.request_id, message.model, message.seed, message.prompt_tokens)


def _tokens(message: pb.Tokens) -> Tokens:
    logprobs = tuple(_logprobs(each) for each in message.logprobs)
    return Tokens(message.first_index, tuple(message.token_ids), message.text, logprobs)


def _logprobs(message: pb.TokenLogprobs) -> TokenLogprobs:
    return TokenLogprobs(
        message.logprob, tuple(Alternative(each.token_id, each.logprob) for each in message.top)
    )


def _finished(message: pb.Finished) -> Finished:
    usage = Usage(
        prompt_tokens=message.usage.prompt_tokens,
        completion_tokens=message.usage.completion_tokens,
        media_tokens=message.usage.media_tokens,
        cached_tokens=message.usage.cached_tokens,
        cached_media=message.usage.cached_media,
    )
    stages = stages_from_proto(message.stages)
    return Finished(_REASONS.get(message.reason, "stop"), message.stop_string or None, usage, stages)


def stages_from_proto(messages: Iterable[pb.StageSpan]) -> tuple[StageSpan, ...]:
    """Without stages that a newer server knows and we do not."""
    return tuple(_stage(each) for each in messages if each.stage in _STAGES)


def _stage(message: pb.StageSpan) -> StageSpan:
    return StageSpan(
        stage=_STAGES[message.stage],
        instance=message.instance_id,
        start_ms=message.start_ms,
        end_ms=message.end_ms,
        transport=message.transport,
    )
