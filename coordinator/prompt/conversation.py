"""A conversation as chat templates know it, with every text of the client's open to change."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from coordinator.calls import ChatMessage, Tool

Change = Callable[[str], str]

_NO_ARGUMENTS = {"type": "object", "properties": {}}


@dataclass(frozen=True, slots=True)
class Conversation:
    """What the client said; tools and tool calls hold checked JSON."""

    messages: tuple[ChatMessage, ...]
    tools: tuple[Tool, ...] = ()

    @property
    def texts(self) -> Iterator[str]:
        """Every text of the client's, in the pieces in which it came."""
        for message in self.messages:
            yield from (part.text for part in message.parts if part.text)
        yield from self._tool_texts

    @property
    def joined_texts(self) -> Iterator[str]:
        """Texts as templates show them: a name may be spelt across two parts of a message."""
        for message in self.messages:
            yield "".join(part.text or "" for part in message.parts)
        yield from self._tool_texts

    @property
    def num_chars(self) -> int:
        return sum(map(len, self.texts))

    @property
    def num_pieces(self) -> int:
        return sum(1 + len(message.parts) + len(message.tool_calls) for message in self.messages)

    @property
    def first_with_calls(self) -> int | None:
        """The place of the first message that has tool calls."""
        places = (place for place, message in enumerate(self.messages) if message.tool_calls)
        return next(places, None)

    def without_tools(self) -> Conversation:
        return replace(self, tools=())

    def without_calls(self) -> Conversation:
        return replace(self, messages=tuple(replace(message, tool_calls=()) for message in self.messages))

    def template_messages(self, change: Change, *, takes_parts: bool) -> list[dict[str, Any]]:
        return [_message(message, change, takes_parts) for message in self.messages]

    def template_tools(self, change: Change) -> list[Any] | None:
        """None where there are none, which templates tell from an empty list."""
        return [_changed(_tool(tool), change) for tool in self.tools] or None

    @property
    def _tool_texts(self) -> Iterator[str]:
        for message in self.messages:
            yield message.tool_call_id
            for call in message.tool_calls:
                yield from (call.call_id, call.name, *_strings(json.loads(call.arguments)))
        for tool in self.tools:
            yield from _strings(_tool(tool))


def _message(message: ChatMessage, change: Change, takes_parts: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {"role": message.role, "content": _content(message, change, takes_parts)}
    if message.tool_calls:
        shown["tool_calls"] = [
            {
                "id": change(call.call_id),
                "type": "function",
                "function": {
                    "name": change(call.name),
                    "arguments": _changed(json.loads(call.arguments), change),
                },
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id:
        shown["tool_call_id"] = change(message.tool_call_id)
    return shown


def _content(message: ChatMessage, change: Change, takes_parts: bool) -> str | list[dict[str, Any]]:
    if not takes_parts or not message.parts:
        return "".join(change(part.text or "") for part in message.parts)
    return [
        {"type": "image"} if part.image is not None else {"type": "text", "text": change(part.text or "")}
        for part in message.parts
    ]


def _tool(tool: Tool) -> dict[str, Any]:
    parameters = json.loads(tool.parameters) if tool.parameters else _NO_ARGUMENTS
    function = {"name": tool.name, "description": tool.description, "parameters": parameters}
    return {"type": "function", "function": function}


def _strings(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)
    elif isinstance(value, dict):
        for key, each in value.items():
            yield key
            yield from _strings(each)


def _changed(value: Any, change: Change) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_changed(each, change) for each in value]
    if isinstance(value, dict):
        return {change(key): _changed(each, change) for key, each in value.items()}
    return value
