"""What is refused of what the model reads: messages with pictures and tool calls, raw prompts, tools."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from coordinator.calls import ChatMessage, GenerateCall, ImageSource, RawPrompt, Tool, ToolCall
from coordinator.checks.counts import MAX_TOOLS, check_count, check_num_pieces
from coordinator.errors import InvalidFieldError

if TYPE_CHECKING:
    from coordinator.checks.call import DoorLimits

_ROLES = ("system", "user", "assistant", "tool")
_MAX_TOOL_CALLS = 128
_MAX_CALL_ID_CHARS = 128
_MAX_JSON_CHARS = 64 << 10
_MAX_JSON_DEPTH = 64
_MAX_TOOLS_CHARS = 256 << 10
_MAX_CALLS_CHARS = 1 << 20  # arguments of all calls of a conversation
_TOOL_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def check_input(call: GenerateCall, limits: DoorLimits) -> None:
    """Raises InvalidFieldError naming the first field that is wrong."""
    if call.prompt is None:
        _check_messages(call.messages, limits)
        _check_tools(call.tools)
        return
    if call.messages:
        raise InvalidFieldError("prompt", "is there together with messages; exactly one of them is needed")
    if call.tools:
        raise InvalidFieldError("tools", "a raw prompt has no template that would show them")
    _check_prompt(call.prompt, limits)


def parse_json(text: str, field: str) -> object:
    """Raises InvalidFieldError for what is no JSON, too long or nested too deeply."""
    if len(text) > _MAX_JSON_CHARS:
        raise InvalidFieldError(field, f"{len(text)} characters, limit {_MAX_JSON_CHARS}")
    if _depth(text) > _MAX_JSON_DEPTH:
        raise InvalidFieldError(field, f"is nested more than {_MAX_JSON_DEPTH} deep")
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False).encode()  # no halves of characters either
        return value
    except ValueError as error:
        raise InvalidFieldError(field, f"is no JSON: {error}") from None


def _depth(text: str) -> int:
    """The deepest nesting of brackets outside of strings; an open string goes to the end."""
    deepest = depth = 0
    for mark in re.findall(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', text, re.DOTALL):
        if mark in ("[", "{"):
            depth += 1
            deepest = max(deepest, depth)
        elif mark in ("]", "}"):
            depth -= 1
    return deepest


def _check_messages(messages: tuple[ChatMessage, ...], limits: DoorLimits) -> None:
    if not messages:
        raise InvalidFieldError("messages", "at least one is needed, or a prompt")
    check_num_pieces(len(messages), (len(each.parts) + len(each.tool_calls) for each in messages))
    num_chars = sum(len(call.arguments) for message in messages for call in message.tool_calls)
    if num_chars > _MAX_CALLS_CHARS:
        raise InvalidFieldError("messages", f"{num_chars} characters in tool calls, limit {_MAX_CALLS_CHARS}")
    num_media = 0
    for i, message in enumerate(messages):
        path = f"messages[{i}]"
        if message.role not in _ROLES:
            raise InvalidFieldError(f"{path}.role", f"{message.role!r} is none of {', '.join(_ROLES)}")
        if not message.parts and not message.tool_calls:
            raise InvalidFieldError(f"{path}.parts", "at least one is needed")
        _check_tool_calls(message, path)
        for j, part in enumerate(message.parts):
            if part.text is None and part.image is None:
                raise InvalidFieldError(f"{path}.parts[{j}]", "has no content")
            if part.image is not None:
                num_media += 1
                _check_image(part.image, f"{path}.parts[{j}].image", limits)
    if num_media > limits.media_per_request:
        raise InvalidFieldError("messages", f"{num_media} media items, limit {limits.media_per_request}")


def _check_image(source: ImageSource, path: str, limits: DoorLimits) -> None:
    if source.kind is None:
        raise InvalidFieldError(path, "has no source")
    if source.digest is not None and len(source.digest) != 32:
        raise InvalidFieldError(f"{path}.digest", f"{len(source.digest)} bytes, a SHA-256 has 32")
    if source.data is not None and not source.data:
        raise InvalidFieldError(f"{path}.data", "is empty")
    if source.data is not None and len(source.data) > limits.media_bytes:
        raise InvalidFieldError(f"{path}.data", f"{len(source.data)} bytes, limit {limits.media_bytes}")
    if source.max_pixels == 0:
        raise InvalidFieldError(f"{path}.max_pixels", "must be at least 1")
    if source.url == "":
        raise InvalidFieldError(f"{path}.url", "is empty")


def _check_tool_calls(message: ChatMessage, path: str) -> None:
    if message.tool_calls and message.role != "assistant":
        raise InvalidFieldError(f"{path}.tool_calls", "only an assistant's message has them")
    if message.tool_call_id and message.role != "tool":
        raise InvalidFieldError(f"{path}.tool_call_id", "only a tool's message has one")
    if len(message.tool_call_id) > _MAX_CALL_ID_CHARS:
        raise InvalidFieldError(f"{path}.tool_call_id", f"longer than {_MAX_CALL_ID_CHARS} characters")
    if len(message.tool_calls) > _MAX_TOOL_CALLS:
        raise InvalidFieldError(
            f"{path}.tool_calls", f"{len(message.tool_calls)} calls, limit {_MAX_TOOL_CALLS}"
        )
    for j, call in enumerate(message.tool_calls):
        _check_tool_call(call, f"{path}.tool_calls[{j}]")


def _check_tool_call(call: ToolCall, path: str) -> None:
    if len(call.call_id) > _MAX_CALL_ID_CHARS:
        raise InvalidFieldError(f"{path}.id", f"longer than {_MAX_CALL_ID_CHARS} characters")
    _check_tool_name(call.name, f"{path}.name")
    if not isinstance(parse_json(call.arguments, f"{path}.arguments"), dict):
        raise InvalidFieldError(f"{path}.arguments", "is no JSON object")


def _check_tools(tools: Sequence[Tool]) -> None:
    check_count("tools", len(tools), MAX_TOOLS)
    num_chars = sum(len(tool.description) + len(tool.parameters) for tool in tools)
    if num_chars > _MAX_TOOLS_CHARS:
        raise InvalidFieldError("tools", f"{num_chars} characters, limit {_MAX_TOOLS_CHARS}")
    names: set[str] = set()
    for i, tool in enumerate(tools):
        _check_tool_name(tool.name, f"tools[{i}].name")
        if tool.name in names:
            raise InvalidFieldError(f"tools[{i}].name", f"{tool.name!r} is there twice")
        names.add(tool.name)
        field = f"tools[{i}].parameters"
        if tool.parameters and not isinstance(parse_json(tool.parameters, field), dict):
            raise InvalidFieldError(field, "is no JSON object")


def _check_tool_name(name: str, field: str) -> None:
    if not _TOOL_NAME.fullmatch(name):
        raise InvalidFieldError(field, "must have 1 to 64 letters, digits, '_', '-' and '.'")


def _check_prompt(prompt: RawPrompt, limits: DoorLimits) -> None:
    if prompt.text is None and prompt.token_ids is None:
        raise InvalidFieldError("prompt", "has no content")
    if prompt.text == "":
        raise InvalidFieldError("prompt.text", "is empty")
    if prompt.token_ids is not None:
        check_prompt_tokens(prompt.token_ids, "prompt.token_ids", limits)


def check_prompt_tokens(token_ids: Sequence[int], field: str, limits: DoorLimits) -> None:
    """Of a raw prompt: there, known, and none that stands for media, as no media belong to it."""
    if not token_ids:
        raise InvalidFieldError(field, "has no tokens")
    for i, token_id in enumerate(token_ids):
        if token_id >= limits.vocab_size:
            raise InvalidFieldError(f"{field}.ids[{i}]", f"{token_id} is outside the vocabulary")
    if not limits.media_token_ids.isdisjoint(token_ids):
        raise InvalidFieldError(field, "holds tokens that stand for media; a raw prompt has none")
