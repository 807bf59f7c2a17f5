"""Errors of the one internal call, with the names that a client of this protocol knows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from coordinator.calls import ChatMessage, ImageSource
from coordinator.errors import FieldError, ServiceError
from coordinator.oip.content import Content
from coordinator.oip.formats import GUIDE, KIND
from coordinator.oip.options import OPTIONS
from coordinator.oip.wishes import Wishes

# By the path in the call: the option, where they differ by more than "sampling.".
_PATHS = {
    "stop.strings": "stop",
    "stop.token_ids": "stop_token_ids",
    "stop.ignore_eos": "ignore_eos",
    "deadline": "timeout",
    "format.json_object": KIND,
    "format.json_schema": GUIDE,
    "format.regex": GUIDE,
    "format.grammar": GUIDE,
}

# Fields that stand within "function" for a client, of a tool and of a call.
_TOOL = ("name", "description", "parameters")
_CALL = ("name", "arguments")

Renamed = tuple[tuple[str, str], ...]


def renamed_fields(content: Content, wishes: Wishes, num_tools: int) -> Renamed:
    """Pairs of a path in the call and the client's name of it; the first that fits a path counts."""
    paths = {f"sampling.{option}": option for option in OPTIONS} | _PATHS
    options = [(path, wishes.given_name(option)) for path, option in paths.items()]
    input_paths = _contents(content.messages) if content.source == "messages" else _whole_input(content)
    images = _images(content.messages, content.images)
    tools = [
        (f"tools[{i}].{field}", f"tools[{i}].function.{field}") for i in range(num_tools) for field in _TOOL
    ]
    return (*images, *options, ("model", "model_name"), *tools, *input_paths)


def with_client_names(error: ServiceError, renamed: Renamed) -> ServiceError:
    """The same error, of the same kind."""
    if not isinstance(error, FieldError):
        return error
    for path, name in renamed:
        if error.field == path or error.field.startswith((f"{path}[", f"{path}.")):
            return type(error)(name + error.field[len(path) :], error.reason)
    return error


def _images(messages: Sequence[ChatMessage], images: Sequence[ImageSource]) -> Iterator[tuple[str, str]]:
    """Pictures are elements of `image`, or URLs within `messages`."""
    places = {id(image): f"image[{k}]" for k, image in enumerate(images)}
    for i, message in enumerate(messages):
        for j, part in enumerate(message.parts):
            path = f"messages[{i}].parts[{j}].image"
            if id(part.image) in places:
                yield from ((path + field, places[id(part.image)]) for field in (".data", ".url", ""))
            elif part.image is not None:
                yield path, f"messages[{i}].content[{j}].image_url"


def _whole_input(content: Content) -> list[tuple[str, str]]:
    paths = ("prompt.token_ids", "prompt.text", "prompt", "messages")
    return [(path, content.source) for path in paths]


def _contents(messages: Sequence[ChatMessage]) -> list[tuple[str, str]]:
    parts = [(f"messages[{i}].parts", f"messages[{i}].content") for i in range(len(messages))]
    calls = [
        f"messages[{i}].tool_calls[{j}]"
        for i, each in enumerate(messages)
        for j in range(len(each.tool_calls))
    ]
    return parts + [(f"{call}.{field}", f"{call}.function.{field}") for call in calls for field in _CALL]
