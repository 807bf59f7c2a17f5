"""The wire request from messages and options."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypedDict

from elasticmm.v1 import inference_pb2 as pb
from elasticmm_client.errors import InvalidRequest
from elasticmm_client.messages import ChatMessage, ImageBytes, ImageUrl, Part, TextPart
from elasticmm_client.tools import parse_tools, to_json

CacheScope = Literal["none", "tenant", "cluster"]
# The name of "json_object", or one of the others with what it takes; a schema may be JSON or what becomes it.
Format = Literal["json_object"] | Mapping[Literal["json_schema", "regex", "grammar"], Any]


class GenerateOptions(TypedDict, total=False):
    """Everything about a request but its messages. What is left out is the server's choice."""

    model: str  # the served one if left out
    max_tokens: int  # at least 1; up to the context length if left out
    temperature: float  # 0 (default) is greedy, at most 5
    top_p: float  # (0, 1]
    top_k: int  # 0 keeps all
    min_p: float  # [0, 1]
    presence_penalty: float  # [-2, 2]
    frequency_penalty: float  # [-2, 2]
    repetition_penalty: float  # (0, 10]
    seed: int  # 64 bits; Accepted.seed tells the one in use
    logprobs: int  # alternatives per token, 0 to 20; of the model itself, whatever else is asked for
    logit_bias: Mapping[int, float]  # added to these tokens' logits, [-100, 100], at most 300 tokens
    stop: str | Sequence[str]  # the answer ends before the first of these
    stop_token_ids: Sequence[int]  # the answer ends with one of these
    ignore_eos: bool  # go on past the model's end token
    prompt: str | Sequence[int]  # in the place of messages: text or token ids as they are, without template
    format: Format  # what the answer has to look like
    tools: Sequence[Mapping[str, Any]]  # see elasticmm_client.tools
    request_id: str  # idempotency key
    tenant: str  # whose request this is; "default" if left out
    cache_scope: CacheScope  # who may find what this leaves in caches; as set for the tenant if left out
    cache_salt: str  # only requests with the same one share cache entries, at most 256 characters
    priority: int  # higher goes first, [-10, 10]
    deadline_s: float  # from arrival to the last token, kept by the server
    timeout_s: float  # of the call, kept by both sides
    resumable_s: float  # kept for so long after a lost call, and read on by itself; 0: ends with its call


_SCOPES = {
    "none": pb.CACHE_SCOPE_NONE,
    "tenant": pb.CACHE_SCOPE_TENANT,
    "cluster": pb.CACHE_SCOPE_CLUSTER,
}
_SAMPLING = frozenset(field.name for field in pb.SamplingParams.DESCRIPTOR.fields)
_FORMATS = frozenset({"json_schema", "regex", "grammar"})
_PLAIN = frozenset({"model", "request_id", "tenant", "priority", "cache_salt"})
_DURATIONS = {"deadline_s": "deadline", "resumable_s": "resumable"}
_STOP = {"stop": "strings", "stop_token_ids": "token_ids", "ignore_eos": "ignore_eos"}


def build_request(
    messages: Iterable[ChatMessage], options: GenerateOptions, uploaded: Mapping[bytes, bytes]
) -> pb.GenerateRequest:
    """The request; pictures in `uploaded` (bytes to digest) go by digest, others inline.

    Raises InvalidRequest for a value that its field cannot hold, TypeError for
    an unknown option.
    """
    request = pb.GenerateRequest(messages=[_message(message, uploaded) for message in messages])
    for name, value in options.items():
        if value is not None and name != "timeout_s":
            _set_option(request, name, value)
    return request


def with_request_id(options: GenerateOptions) -> GenerateOptions:
    """A resumable request has an id before it is sent: it can be named whatever happens to the call."""
    if not options.get("resumable_s") or options.get("request_id"):
        return options
    return {**options, "request_id": uuid.uuid4().hex}


def _set_option(request: pb.GenerateRequest, name: str, value: Any) -> None:
    if name in _SAMPLING:
        _assign(request.sampling, name, value, f"sampling.{name}")
    elif name in _PLAIN:
        _assign(request, name, value, name)
    elif name in _STOP:
        values = [value] if isinstance(value, str) else value
        _assign(request.stop, _STOP[name], values, f"stop.{_STOP[name]}")
    elif name in _DURATIONS:
        _set_duration(request, _DURATIONS[name], value)
    elif name == "cache_scope":
        _set_scope(request, value)
    elif name == "prompt":
        _set_prompt(request, value)
    elif name == "format":
        _set_format(request, value)
    elif name == "tools":
        request.tools.extend(
            pb.Tool(name=each.name, description=each.description, parameters=each.parameters)
            for each in parse_tools(value)
        )
    else:
        raise TypeError(f"generate() got an unexpected option {name!r}")


def _assign(target: Any, name: str, value: Any, field: str) -> None:
    try:
        if isinstance(value, Mapping):
            getattr(target, name).update(value)
        elif isinstance(value, bool) or not isinstance(value, Sequence) or isinstance(value, str):
            setattr(target, name, value)
        else:
            getattr(target, name).extend(value)
    except (TypeError, ValueError, AttributeError) as error:
        raise InvalidRequest(str(error), field=field) from error


def _set_duration(request: pb.GenerateRequest, name: str, seconds: float) -> None:
    try:
        getattr(request, name).FromNanoseconds(int(seconds * 1e9))
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidRequest(str(error), field=name) from error


def _set_scope(request: pb.GenerateRequest, scope: str) -> None:
    if scope not in _SCOPES:
        raise InvalidRequest(f"{scope!r} is none of {', '.join(_SCOPES)}", field="cache_scope")
    request.cache_scope = _SCOPES[scope]


def _set_prompt(request: pb.GenerateRequest, prompt: str | Sequence[int]) -> None:
    if isinstance(prompt, str):
        _assign(request.prompt, "text", prompt, "prompt.text")
    else:
        request.prompt.token_ids.SetInParent()
        _assign(request.prompt.token_ids, "ids", list(prompt), "prompt.token_ids")


def _set_format(request: pb.GenerateRequest, form: Format) -> None:
    if form == "json_object":
        request.format.json_object = True
        return
    if not isinstance(form, Mapping) or len(form) != 1 or not form.keys() <= _FORMATS:
        raise InvalidRequest(
            f"is neither json_object nor one of {', '.join(sorted(_FORMATS))}", field="format"
        )
    ((kind, value),) = form.items()
    field = f"format.{kind}"
    _assign(request.format, kind, to_json(value, field) if kind == "json_schema" else value, field)


def _message(message: ChatMessage, uploaded: Mapping[bytes, bytes]) -> pb.Message:
    return pb.Message(
        role=message.role,
        parts=[_part(part, uploaded) for part in message.parts],
        tool_calls=[
            pb.ToolCall(id=each.id, name=each.name, arguments=each.arguments) for each in message.tool_calls
        ],
        tool_call_id=message.tool_call_id,
    )


def _part(part: Part, uploaded: Mapping[bytes, bytes]) -> pb.Part:
    match part:
        case TextPart(text):
            return pb.Part(text=text)
        case ImageUrl(url, max_pixels):
            return pb.Part(image=pb.ImagePart(url=url, max_pixels=max_pixels))
        case ImageBytes(data, _, max_pixels) if data in uploaded:
            return pb.Part(image=pb.ImagePart(digest=uploaded[data], max_pixels=max_pixels))
        case ImageBytes(data, _, max_pixels):
            return pb.Part(image=pb.ImagePart(data=data, max_pixels=max_pixels))
