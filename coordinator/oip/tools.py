"""Tools, and calls of them in earlier answers, in the form in which OpenAI's clients write them."""

from __future__ import annotations

import json

from coordinator.calls import Tool, ToolCall
from coordinator.errors import InvalidFieldError
from coordinator.oip.values import from_json, to_object, to_text

TOOLS = "tools"


def to_tools(text: str) -> tuple[Tool, ...]:
    """A JSON array of {"type": "function", "function": {"name", "description", "parameters"}}.

    Raises InvalidFieldError with the path.
    """
    given = from_json(TOOLS, text)
    if not isinstance(given, list):
        raise InvalidFieldError(TOOLS, "is no JSON array")
    return tuple(_to_tool(f"{TOOLS}[{i}]", each) for i, each in enumerate(given))


def to_tool_calls(path: str, given: object) -> tuple[ToolCall, ...]:
    """An array of {"id", "type": "function", "function": {"name", "arguments"}}; arguments are text.

    None: no calls. Raises InvalidFieldError with the path.
    """
    if given is None:
        return ()
    if not isinstance(given, list):
        raise InvalidFieldError(path, "is no JSON array")
    return tuple(_to_call(f"{path}[{i}]", each) for i, each in enumerate(given))


def _to_tool(path: str, given: object) -> Tool:
    function = _function_of(path, to_object(path, given, {"type", "function"}))
    fields = to_object(f"{path}.function", function, {"name", "description", "parameters"})
    description, parameters = fields.get("description"), fields.get("parameters")
    return Tool(
        name=to_text(f"{path}.function.name", fields.get("name")),
        description="" if description is None else to_text(f"{path}.function.description", description),
        parameters="" if parameters is None else json.dumps(parameters, ensure_ascii=False),
    )


def _to_call(path: str, given: object) -> ToolCall:
    call = to_object(path, given, {"id", "type", "function"})
    fields = to_object(f"{path}.function", _function_of(path, call), {"name", "arguments"})
    return ToolCall(
        call_id=to_text(f"{path}.id", call.get("id")),
        name=to_text(f"{path}.function.name", fields.get("name")),
        arguments=to_text(f"{path}.function.arguments", fields.get("arguments")),
    )


def _function_of(path: str, given: dict[str, object]) -> object:
    if given.get("type", "function") != "function":
        raise InvalidFieldError(f"{path}.type", "is not function")
    return given.get("function")
