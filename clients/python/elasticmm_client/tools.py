"""Tools and their calls as users write them: plain, or as OpenAI's clients do, inside of a "function"."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from elasticmm_client.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class ToolCall:
    id: str
    name: str
    arguments: str  # JSON


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    description: str
    parameters: str  # JSON schema, empty: none


def parse_tools(tools: Any) -> list[Tool]:
    """From `{"name": …, "description": …, "parameters": …}` each; raises InvalidRequest naming the field."""
    return [_tool(tool, f"tools[{index}]") for index, tool in enumerate(_listed(tools, "tools"))]


def parse_tool_calls(calls: Any, field: str) -> tuple[ToolCall, ...]:
    """From `{"id": …, "name": …, "arguments": …}` each; raises InvalidRequest naming the field."""
    return tuple(_call(call, f"{field}[{index}]") for index, call in enumerate(_listed(calls, field)))


def to_json(value: Any, field: str) -> str:
    """Strings are taken as JSON already. Raises InvalidRequest for what JSON has no word for."""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise InvalidRequest(str(error), field=field) from error


def _listed(values: Any, field: str) -> Iterable[Any]:
    if not isinstance(values, Iterable) or isinstance(values, str | Mapping):
        raise InvalidRequest("needs a list", field=field)
    return values


def _tool(tool: Any, field: str) -> Tool:
    function = _function(tool, field)
    parameters = function.get("parameters")
    return Tool(
        function["name"],
        function.get("description") or "",
        "" if parameters is None else to_json(parameters, f"{field}.parameters"),
    )


def _call(call: Any, field: str) -> ToolCall:
    function = _function(call, field)
    arguments = to_json(function.get("arguments", {}), f"{field}.arguments")
    return ToolCall(call.get("id") or "", function["name"], arguments)


def _function(value: Any, field: str) -> Mapping[str, Any]:
    function = value.get("function", value) if isinstance(value, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise InvalidRequest("needs a name", field=f"{field}.name")
    return function
