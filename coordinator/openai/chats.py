"""A chat as the internal calls, one per choice."""

from __future__ import annotations

from dataclasses import replace

from coordinator.calls import LOW_DETAIL_PIXELS, ChatMessage, ChatPart, GenerateCall, ToolCall
from coordinator.checks.counts import check_num_pieces
from coordinator.openai import chat_schema as schema
from coordinator.openai.asked import Asked
from coordinator.openai.chat_answer import ChatAnswer
from coordinator.openai.errors import BadRequestError
from coordinator.openai.params import chat_param, forced_call_param
from coordinator.openai.pictures import to_source
from coordinator.openai.token_texts import TokenTexts
from coordinator.openai.tool_choice import plan_tools
from coordinator.openai.wishes import (
    check_stream,
    choices_of,
    name_of,
    numbered,
    to_sampling,
    to_scope,
    to_stop,
)


def to_asked(request: schema.ChatRequest, texts: TokenTexts) -> Asked:
    """Raises BadRequestError for what no internal call could say, InvalidFieldError for more than any may."""
    check_stream(request)
    check_num_pieces(len(request.messages), map(_num_inside, request.messages))
    plan = plan_tools(request)
    name, num_choices = name_of(request), request.n or 1
    call = GenerateCall(
        messages=tuple(_to_message(each, f"messages[{i}]") for i, each in enumerate(request.messages)),
        model=request.model or "",
        sampling=to_sampling(request, _max_tokens(request), _logprobs(request)),
        stop=to_stop(request, *plan.stop),
        tenant=request.tenant or "",
        priority=request.priority or 0,
        deadline_s=request.timeout,
        cache_scope=to_scope(request),
        cache_salt=request.cache_salt or "",
        format=plan.format,
        tools=plan.tools,
    )
    return Asked(
        name=name,
        calls=numbered(choices_of(call, num_choices), name),
        num_per_prompt=num_choices,
        answer=ChatAnswer(plan.make_reader, num_choices, texts if request.logprobs else None),
        param=forced_call_param if plan.tools else chat_param,
        is_stream=bool(request.stream),
        stream_options=request.stream_options,
    )


def _max_tokens(request: schema.ChatRequest) -> int | None:
    old, new = request.max_tokens, request.max_completion_tokens
    if old is not None and new is not None and old != new:
        raise BadRequestError(
            f"max_completion_tokens: {new}, but max_tokens is {old}",
            param="max_completion_tokens",
            code="invalid_value",
        )
    return old if new is None else new


def _logprobs(request: schema.ChatRequest) -> int | None:
    """How many alternatives; None: nothing of it."""
    if request.logprobs:
        return request.top_logprobs or 0
    if request.top_logprobs:
        raise BadRequestError(
            "top_logprobs: needs logprobs to be true", param="top_logprobs", code="invalid_value"
        )
    return None


def _to_message(message: schema.Message, path: str) -> ChatMessage:
    role = "system" if message.role == "developer" else message.role
    parts = _to_parts(message.content, f"{path}.content")
    if isinstance(message, schema.AssistantMessage):
        calls = tuple(
            ToolCall(each.id, each.function.name, each.function.arguments)
            for each in message.tool_calls or ()
        )
        return ChatMessage(role, parts, calls)
    if isinstance(message, schema.ToolMessage):
        return ChatMessage(role, parts, tool_call_id=message.tool_call_id)
    return ChatMessage(role, parts)


def _num_inside(message: schema.Message) -> int:
    calls = message.tool_calls if isinstance(message, schema.AssistantMessage) else None
    return len(message.content or ()) * isinstance(message.content, list) + len(calls or ())


def _to_parts(content: str | list[schema.Part] | None, path: str) -> tuple[ChatPart, ...]:
    if content is None:
        return ()
    if isinstance(content, str):
        return (ChatPart(text=content),)
    return tuple(_to_part(part, f"{path}[{i}]") for i, part in enumerate(content))


def _to_part(part: schema.Part, path: str) -> ChatPart:
    if isinstance(part, schema.TextPart):
        return ChatPart(text=part.text)
    source = to_source(part.image_url.url, f"{path}.image_url.url")
    is_low = part.image_url.detail == "low"
    return ChatPart(image=replace(source, max_pixels=LOW_DETAIL_PIXELS if is_low else None))
