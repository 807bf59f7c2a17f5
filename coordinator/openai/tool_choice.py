"""Which tools the model is told of, whether it has to call one, and how its calls are read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from coordinator.calls import Tool
from coordinator.openai import chat_schema as schema
from coordinator.openai.errors import BadRequestError
from coordinator.openai.readers import (
    CLOSE,
    AnswerReader,
    ArgumentsReader,
    ListReader,
    PlainReader,
    TaggedReader,
)
from coordinator.openai.wishes import dump, to_format
from core.output_format import FormatKind, OutputFormat

MakeReader = Callable[[], AnswerReader]


@dataclass(frozen=True, slots=True)
class ToolPlan:
    """`stop` ends the answer after its first call."""

    make_reader: MakeReader
    tools: tuple[Tool, ...] = ()
    format: OutputFormat | None = None
    stop: tuple[str, ...] = ()


def plan_tools(request: schema.ChatRequest) -> ToolPlan:
    """Raises BadRequestError where the choice and the tools do not fit together.

    A forced call is an answer of a fixed form: the arguments of the one tool, or a list of
    calls. A free one is found in the text, in the form that the models' templates ask for.
    """
    given, choice = request.tools or [], request.tool_choice
    if not given and choice not in (None, "none"):
        raise _refusal("tool_choice", "there are no tools to choose from")
    if not given or choice == "none":
        return ToolPlan(PlainReader, format=to_format(request.response_format))
    if to_format(request.response_format) is not None:
        raise _refusal("response_format", "an answer of a fixed form cannot call tools")
    tools = tuple(map(_to_tool, given))
    only_one = request.parallel_tool_calls is False
    if choice in (None, "auto"):
        return ToolPlan(TaggedReader, tools, stop=(CLOSE,) if only_one else ())
    if isinstance(choice, schema.NamedTool):
        return _plan_named(tools, given, choice.function.name)
    if len(given) == 1 and only_one:
        return _plan_named(tools, given, given[0].function.name, is_forced_choice=False)
    wanted = OutputFormat(FormatKind.JSON_SCHEMA, dump(_list_schema(given, only_one=only_one)))
    return ToolPlan(ListReader, tools, wanted)


def _plan_named(
    tools: tuple[Tool, ...], given: list[schema.Tool], name: str, *, is_forced_choice: bool = True
) -> ToolPlan:
    found = next((each.function for each in given if each.function.name == name), None)
    if found is None:
        raise _refusal("tool_choice", f"{name[:64]!r} is none of the tools")
    wanted = OutputFormat(FormatKind.JSON_SCHEMA, dump(_parameters(found)))
    return ToolPlan(lambda: ArgumentsReader(name, ends_as_call=not is_forced_choice), tools, wanted)


def _list_schema(given: list[schema.Tool], *, only_one: bool) -> dict[str, Any]:
    """A list of at least one {"name", "arguments"}."""
    calls = [_call_schema(each.function, f"#/items/anyOf/{i}") for i, each in enumerate(given)]
    whole: dict[str, Any] = {"type": "array", "items": {"anyOf": calls}, "minItems": 1}
    return whole | {"maxItems": 1} if only_one else whole


def _call_schema(function: schema.Function, place: str) -> dict[str, Any]:
    arguments = _moved(_parameters(function), f"{place}/properties/arguments")
    return {
        "type": "object",
        "properties": {"name": {"const": function.name}, "arguments": arguments},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _moved(value: Any, place: str) -> Any:
    """A schema whose references to itself hold at `place` of a larger one."""
    if isinstance(value, list):
        return [_moved(each, place) for each in value]
    if not isinstance(value, dict):
        return value
    moved = {name: _moved(each, place) for name, each in value.items()}
    reference = value.get("$ref")
    if isinstance(reference, str) and reference.startswith("#"):
        moved["$ref"] = place + reference[1:]
    return moved


def _parameters(function: schema.Function) -> dict[str, Any]:
    """None are said: an object without properties."""
    if function.parameters:
        return function.parameters
    return {"type": "object", "properties": {}, "additionalProperties": False}


def _to_tool(tool: schema.Tool) -> Tool:
    function = tool.function
    parameters = "" if function.parameters is None else json.dumps(function.parameters, ensure_ascii=False)
    return Tool(function.name, function.description or "", parameters)


def _refusal(param: str, reason: str) -> BadRequestError:
    return BadRequestError(f"{param}: {reason}", param=param, code="invalid_value")
