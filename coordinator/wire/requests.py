"""A call as a client of the coordinator sends it: the way back of wire.inference.to_call."""

from __future__ import annotations

from typing import Any

from google.protobuf.duration_pb2 import Duration

from coordinator.calls import ChatMessage, ChatPart, GenerateCall, ImageSource, RawPrompt, SamplingWish
from coordinator.wire.inference import from_format, from_scope
from elasticmm.v1 import inference_pb2 as pb

_MAX_UINT32 = 2**32 - 1
_MAX_DURATION_S = 315_576_000_000  # of protobuf's Duration


def from_call(call: GenerateCall) -> pb.GenerateRequest:
    """A number that its field cannot hold becomes the nearest one that it can, and is refused like that.

    Who calls and the trace are not in it: they travel in the call's metadata.
    """
    request = pb.GenerateRequest(
        messages=[_from_chat_message(each) for each in call.messages],
        request_id=call.request_id,
        model=call.model,
        sampling=_from_sampling_wish(call.sampling),
        stop=pb.StopConditions(
            strings=call.stop.strings, token_ids=call.stop.token_ids, ignore_eos=call.stop.ignore_eos
        ),
        tenant=call.tenant,
        priority=call.priority,
        cache_scope=pb.CACHE_SCOPE_UNSPECIFIED if call.cache_scope is None else from_scope(call.cache_scope),
        cache_salt=call.cache_salt,
        prompt=None if call.prompt is None else _from_prompt(call.prompt),
        format=None if call.format is None else from_format(call.format),
        tools=[
            pb.Tool(name=each.name, description=each.description, parameters=each.parameters)
            for each in call.tools
        ],
    )
    if call.deadline_s is not None:
        request.deadline.CopyFrom(_from_seconds(call.deadline_s))
    if call.resumable_s:
        request.resumable.CopyFrom(_from_seconds(call.resumable_s))
    return request


def _from_sampling_wish(wish: SamplingWish) -> pb.SamplingParams:
    given: dict[str, Any] = {
        "max_tokens": None if wish.max_tokens is None else _uint32(wish.max_tokens),
        "temperature": wish.temperature,
        "top_p": wish.top_p,
        "top_k": wish.top_k,
        "min_p": wish.min_p,
        "presence_penalty": wish.presence_penalty,
        "frequency_penalty": wish.frequency_penalty,
        "repetition_penalty": wish.repetition_penalty,
        "seed": wish.seed,
        "logprobs": wish.logprobs,
    }
    biases = {_uint32(token_id): bias for token_id, bias in wish.logit_bias}
    return pb.SamplingParams(
        logit_bias=biases, **{name: value for name, value in given.items() if value is not None}
    )


def _from_chat_message(message: ChatMessage) -> pb.Message:
    return pb.Message(
        role=message.role,
        parts=[_from_part(part) for part in message.parts],
        tool_calls=[
            pb.ToolCall(id=each.call_id, name=each.name, arguments=each.arguments)
            for each in message.tool_calls
        ],
        tool_call_id=message.tool_call_id,
    )


def _from_part(part: ChatPart) -> pb.Part:
    if part.text is not None:
        return pb.Part(text=part.text)
    return pb.Part() if part.image is None else pb.Part(image=_from_source(part.image))


def _from_source(source: ImageSource) -> pb.ImagePart:
    given: dict[str, Any] = {} if source.kind is None else {source.kind: getattr(source, source.kind)}
    if source.max_pixels is not None:
        given["max_pixels"] = _uint32(source.max_pixels)
    return pb.ImagePart(**given)


def _from_prompt(prompt: RawPrompt) -> pb.Prompt:
    if prompt.text is not None:
        return pb.Prompt(text=prompt.text)
    return pb.Prompt() if prompt.token_ids is None else pb.Prompt(token_ids=pb.TokenIds(ids=prompt.token_ids))


def _from_seconds(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(round(min(max(seconds, -_MAX_DURATION_S), _MAX_DURATION_S) * 1e9))
    return duration


def _uint32(value: int) -> int:
    return min(max(value, 0), _MAX_UINT32)
