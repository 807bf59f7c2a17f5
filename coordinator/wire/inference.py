"""The client contract: calls in, events out."""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.message import Message as ProtoMessage

from coordinator.calls import (
    ChatMessage,
    ChatPart,
    GenerateCall,
    ImageSource,
    RawPrompt,
    SamplingWish,
    StopWish,
    Tool,
    ToolCall,
)
from coordinator.checks.counts import MAX_BIASES, MAX_PROMPT_TOKENS, MAX_TOOLS, check_count, check_num_pieces
from coordinator.errors import InvalidFieldError
from coordinator.events import AcceptedEvent, Event, FinishedEvent, StageSpan, TokensEvent
from coordinator.state import ServedDescription
from core.cache.scope import CacheScope
from core.output_format import FormatKind, OutputFormat
from core.sampling import SamplingParams
from core.sequence import FinishReason, TokenLogprobs
from core.stages import Stage
from elasticmm.v1 import inference_pb2 as pb

V = TypeVar("V")

_STAGES = {
    Stage.ENCODE: pb.STAGE_ENCODE,
    Stage.PREFILL: pb.STAGE_PREFILL,
    Stage.DECODE: pb.STAGE_DECODE,
}
_STAGES_BACK = {value: stage for stage, value in _STAGES.items()}
_FINISHES = {FinishReason.STOP: pb.FINISH_REASON_STOP, FinishReason.LENGTH: pb.FINISH_REASON_LENGTH}
_FINISHES_BACK = {value: reason for reason, value in _FINISHES.items()}
_SCOPES = {
    CacheScope.NONE: pb.CACHE_SCOPE_NONE,
    CacheScope.TENANT: pb.CACHE_SCOPE_TENANT,
    CacheScope.CLUSTER: pb.CACHE_SCOPE_CLUSTER,
}
_SCOPES_BACK = {value: scope for scope, value in _SCOPES.items()}


def to_call(message: pb.GenerateRequest) -> GenerateCall:
    """Raises InvalidFieldError for what has no meaning here, or more of it than is worth converting."""
    _check_counts(message)
    return GenerateCall(
        messages=tuple(_to_chat_message(each) for each in message.messages),
        request_id=message.request_id,
        model=message.model,
        sampling=to_sampling_wish(message.sampling),
        stop=StopWish(tuple(message.stop.strings), tuple(message.stop.token_ids), message.stop.ignore_eos),
        tenant=message.tenant,
        priority=message.priority,
        deadline_s=message.deadline.ToNanoseconds() / 1e9 if message.HasField("deadline") else None,
        size_bytes=message.ByteSize(),
        cache_scope=to_scope(message.cache_scope),
        cache_salt=message.cache_salt,
        prompt=_to_prompt(message.prompt) if message.HasField("prompt") else None,
        format=to_format(message.format) if message.HasField("format") else None,
        tools=tuple(Tool(each.name, each.description, each.parameters) for each in message.tools),
        resumable_s=message.resumable.ToNanoseconds() / 1e9,
    )


def to_sampling_wish(message: pb.SamplingParams) -> SamplingWish:
    return SamplingWish(
        max_tokens=_opinion(message, "max_tokens", message.max_tokens),
        temperature=_opinion(message, "temperature", message.temperature),
        top_p=_opinion(message, "top_p", message.top_p),
        top_k=_opinion(message, "top_k", message.top_k),
        min_p=_opinion(message, "min_p", message.min_p),
        presence_penalty=_opinion(message, "presence_penalty", message.presence_penalty),
        frequency_penalty=_opinion(message, "frequency_penalty", message.frequency_penalty),
        repetition_penalty=_opinion(message, "repetition_penalty", message.repetition_penalty),
        seed=_opinion(message, "seed", message.seed),
        logprobs=_opinion(message, "logprobs", message.logprobs),
        logit_bias=tuple(sorted(message.logit_bias.items())),
    )


def from_sampling(params: SamplingParams) -> pb.SamplingParams:
    """Complete, so that nothing is left to the other side's defaults; unset logprobs report none."""
    return pb.SamplingParams(
        max_tokens=params.max_tokens,
        temperature=params.temperature,
        top_p=params.top_p,
        top_k=params.top_k,
        min_p=params.min_p,
        presence_penalty=params.presence_penalty,
        frequency_penalty=params.frequency_penalty,
        repetition_penalty=params.repetition_penalty,
        seed=params.seed,
        logprobs=params.logprobs,
        logit_bias=dict(params.logit_bias),
    )


def to_format(message: pb.OutputFormat) -> OutputFormat:
    """Raises InvalidFieldError where it says nothing."""
    name = message.WhichOneof("kind")
    if name is None:
        raise InvalidFieldError("format", "has no kind")
    if name == "json_object":
        if not message.json_object:
            raise InvalidFieldError("format.json_object", "must be true, or not be there")
        return OutputFormat(FormatKind.JSON_OBJECT)
    return OutputFormat(FormatKind(name), getattr(message, name))


def from_format(form: OutputFormat) -> pb.OutputFormat:
    if form.kind is FormatKind.JSON_OBJECT:
        return pb.OutputFormat(json_object=True)
    message = pb.OutputFormat()
    setattr(message, form.kind.value, form.text)
    return message


def from_event(event: Event) -> pb.GenerateEvent:
    match event:
        case TokensEvent():
            return _from_tokens(event)
        case AcceptedEvent():
            return pb.GenerateEvent(accepted=_from_accepted(event))
        case FinishedEvent():
            return pb.GenerateEvent(finished=_from_finished(event))


def from_description(description: ServedDescription) -> pb.GetModelResponse:
    limits = pb.Limits(
        context_tokens=description.context_tokens,
        message_bytes=description.message_bytes,
        media_bytes=description.media_bytes,
        media_pixels=description.media_pixels,
        media_per_request=description.media_per_request,
        resume_tokens=description.resume_tokens,
    )
    limits.media_ttl.FromNanoseconds(round(description.media_ttl_s * 1e9))
    limits.resume_ttl.FromNanoseconds(round(description.resume_ttl_s * 1e9))
    return pb.GetModelResponse(
        model=description.model, media_endpoint=description.media_endpoint, limits=limits
    )


def to_scope(value: pb.CacheScope.ValueType) -> CacheScope | None:
    """None for an unspecified one.

    Raises InvalidFieldError for one that this version does not know: another one in its place might share
    more than was meant.
    """
    if value == pb.CACHE_SCOPE_UNSPECIFIED:
        return None
    if value not in _SCOPES_BACK:
        raise InvalidFieldError("cache_scope", f"{value} is no scope that is known here")
    return _SCOPES_BACK[value]


def from_scope(scope: CacheScope) -> pb.CacheScope.ValueType:
    return _SCOPES[scope]


def from_stage(stage: Stage) -> pb.Stage.ValueType:
    return _STAGES[stage]


def to_stage(value: pb.Stage.ValueType) -> Stage | None:
    """None for an unspecified stage, or one that this version does not know."""
    return _STAGES_BACK.get(value)


def from_finish(reason: FinishReason | None) -> pb.FinishReason.ValueType:
    return pb.FINISH_REASON_UNSPECIFIED if reason is None else _FINISHES[reason]


def to_finish(value: pb.FinishReason.ValueType) -> FinishReason | None:
    return _FINISHES_BACK.get(value)


def from_logprobs(logprobs: TokenLogprobs) -> pb.TokenLogprobs:
    top = [pb.Alternative(token_id=token_id, logprob=logprob) for token_id, logprob in logprobs.top]
    return pb.TokenLogprobs(logprob=logprobs.logprob, top=top)


def to_logprobs(message: pb.TokenLogprobs) -> TokenLogprobs:
    return TokenLogprobs(message.logprob, tuple((each.token_id, each.logprob) for each in message.top))


def _check_counts(message: pb.GenerateRequest) -> None:
    inside = (len(each.parts) + len(each.tool_calls) for each in message.messages)
    check_num_pieces(len(message.messages), inside)
    check_count("prompt.token_ids", len(message.prompt.token_ids.ids), MAX_PROMPT_TOKENS)
    check_count("sampling.logit_bias", len(message.sampling.logit_bias), MAX_BIASES)
    check_count("tools", len(message.tools), MAX_TOOLS)


def _to_chat_message(message: pb.Message) -> ChatMessage:
    return ChatMessage(
        message.role,
        tuple(_to_part(part) for part in message.parts),
        tuple(ToolCall(each.id, each.name, each.arguments) for each in message.tool_calls),
        message.tool_call_id,
    )


def _to_prompt(message: pb.Prompt) -> RawPrompt:
    kind = message.WhichOneof("content")
    return RawPrompt(
        text=message.text if kind == "text" else None,
        token_ids=tuple(message.token_ids.ids) if kind == "token_ids" else None,
    )


def _to_part(part: pb.Part) -> ChatPart:
    match part.WhichOneof("content"):
        case "text":
            return ChatPart(text=part.text)
        case "image":
            return ChatPart(image=_to_source(part.image))
        case _:
            return ChatPart()


def _to_source(image: pb.ImagePart) -> ImageSource:
    kind = image.WhichOneof("source")
    return ImageSource(
        digest=image.digest if kind == "digest" else None,
        data=image.data if kind == "data" else None,
        url=image.url if kind == "url" else None,
        max_pixels=_opinion(image, "max_pixels", image.max_pixels),
    )


def _from_accepted(event: AcceptedEvent) -> pb.Accepted:
    return pb.Accepted(
        request_id=event.request_id, model=event.model, seed=event.seed, prompt_tokens=event.prompt_tokens
    )


def _from_tokens(event: TokensEvent) -> pb.GenerateEvent:
    """Filled in place, which takes half the time of putting one message into another."""
    message = pb.GenerateEvent()
    tokens = message.tokens
    tokens.first_index = event.first_index
    tokens.token_ids.extend(event.token_ids)
    tokens.text = event.text
    if event.logprobs:
        tokens.logprobs.extend(map(from_logprobs, event.logprobs))
    tokens.SetInParent()
    return message


def _from_finished(event: FinishedEvent) -> pb.Finished:
    usage = pb.Usage(
        prompt_tokens=event.usage.prompt_tokens,
        completion_tokens=event.usage.completion_tokens,
        media_tokens=event.usage.media_tokens,
        cached_tokens=event.usage.cached_tokens,
        cached_media=event.usage.cached_media,
    )
    return pb.Finished(
        reason=from_finish(event.reason),
        stop_string=event.stop_string,
        usage=usage,
        stages=[from_span(span) for span in event.stages],
    )


def from_span(span: StageSpan) -> pb.StageSpan:
    return pb.StageSpan(
        stage=from_stage(span.stage),
        instance_id=span.instance_id,
        start_ms=span.start_ms,
        end_ms=span.end_ms,
        transport=span.transport,
    )


def _opinion(message: ProtoMessage, name: str, value: V) -> V | None:
    return value if message.HasField(name) else None
