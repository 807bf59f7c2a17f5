"""The body of POST /v1/chat/completions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from coordinator.openai.schema import CommonRequest, Strict


class TextPart(Strict):
    type: Literal["text"]
    text: str


class ImageUrl(Strict):
    url: Annotated[str, Field(description="data:, http: or https:")]
    detail: Annotated[
        Literal["auto", "low", "high"] | None,
        Field(
            description="'low': at most 512x512 pixels are read; else as many as the model's processor takes."
        ),
    ] = None


class ImagePart(Strict):
    type: Literal["image_url"]
    image_url: ImageUrl


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class SystemMessage(Strict):
    role: Literal["system", "developer"]
    content: str | list[Part]


class UserMessage(Strict):
    role: Literal["user"]
    content: str | list[Part]


class CalledFunction(Strict):
    name: str
    arguments: Annotated[str, Field(description="JSON.")]


class CalledTool(Strict):
    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class AssistantMessage(Strict):
    """Takes back what an answer's message holds; fields that are always null there are so here."""

    role: Literal["assistant"]
    content: str | list[Part] | None = None
    tool_calls: list[CalledTool] | None = None
    refusal: None = None
    audio: None = None
    function_call: None = None
    annotations: Annotated[list[Any] | None, Field(max_length=0)] = None


class ToolMessage(Strict):
    role: Literal["tool"]
    content: str | list[Part]
    tool_call_id: str


Message = Annotated[SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]


class Function(Strict):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: Annotated[
        bool | None, Field(description="Arguments fit their schema where a call is forced.")
    ] = None


class Tool(Strict):
    type: Literal["function"]
    function: Function


class FunctionName(Strict):
    name: str


class NamedTool(Strict):
    type: Literal["function"]
    function: FunctionName


class ChatRequest(CommonRequest):
    """The body of POST /v1/chat/completions."""

    messages: list[Message]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int | None, Field(ge=0, lt=2**31)] = None
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    modalities: list[Literal["text"]] | None = None
