"""Chat messages as users write them, checked and made plain.

A message is `{"role": "user", "content": …}` whose content is a string or a
list of parts: `{"type": "text", "text": …}`, `{"type": "image", "image": …}`
with bytes, a path or a PIL image, `{"type": "image", "url": …}`, or OpenAI's
`{"type": "image_url", "image_url": {"url": …}}`. A picture may have `"max_pixels"`,
the most that the model reads of it, or OpenAI's `"detail"`. An assistant's message may
have `"tool_calls"` and no content, a tool's has `"tool_call_id"` (see
elasticmm_client.tools).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from elasticmm_client.errors import InvalidRequest
from elasticmm_client.pictures import is_url, read_picture
from elasticmm_client.tools import ToolCall, parse_tool_calls

_LOW_DETAIL_PIXELS = 512 * 512

Messages = str | Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class TextPart:
    text: str


@dataclass(frozen=True, slots=True)
class ImageBytes:
    """A picture file's bytes, to be uploaded or sent inline."""

    data: bytes
    field: str  # where it stood, for errors
    max_pixels: int | None = None  # None: as the model's processor is set


@dataclass(frozen=True, slots=True)
class ImageUrl:
    url: str
    max_pixels: int | None = None


Part = TextPart | ImageBytes | ImageUrl


@dataclass(frozen=True, slots=True)
class ChatMessage:
    role: str
    parts: tuple[Part, ...]
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""


def user_message(text: str, *images: Any) -> dict[str, Any]:
    """A user's message: the pictures (bytes, path, PIL image or URL), then the text."""
    pictures = [{"type": "image", "image": image} for image in images]
    return {"role": "user", "content": [*pictures, {"type": "text", "text": text}]}


def parse_messages(messages: Messages) -> list[ChatMessage]:
    """Checks shape and reads picture files. A plain string is one user message.

    Raises InvalidRequest naming the field. What is inside a picture is for the
    server to judge.
    """
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    return [_message(message, f"messages[{index}]") for index, message in enumerate(messages)]


def pictures_of(messages: Iterable[ChatMessage]) -> list[ImageBytes]:
    """Every picture that is not a URL, in order."""
    return [part for message in messages for part in message.parts if isinstance(part, ImageBytes)]


def _message(message: Mapping[str, Any], field: str) -> ChatMessage:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise InvalidRequest("needs a role", field=f"{field}.role")
    calls = parse_tool_calls(message.get("tool_calls") or (), f"{field}.tool_calls")
    content = message.get("content")
    if content is None and calls:
        content = []
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, Sequence) or isinstance(content, bytes):
        raise InvalidRequest("needs a content: a string or a list of parts", field=f"{field}.content")
    parts = tuple(_part(part, f"{field}.parts[{index}]") for index, part in enumerate(content))
    return ChatMessage(message["role"], parts, calls, message.get("tool_call_id") or "")


def _part(part: Any, field: str) -> Part:
    if isinstance(part, str):
        return TextPart(part)
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return TextPart(part["text"])
    if kind in ("image", "image_url"):
        return _image(part, f"{field}.image")
    raise InvalidRequest("is neither a text nor an image part", field=field)


def _image(part: Mapping[str, Any], field: str) -> ImageBytes | ImageUrl:
    named = [part[key] for key in ("image", "url", "image_url") if part.get(key) is not None]
    if len(named) != 1:
        raise InvalidRequest("needs one of 'image', 'url' and 'image_url'", field=field)
    source = named[0]
    max_pixels = _max_pixels(part, field)
    if isinstance(source, Mapping):
        max_pixels = max_pixels or _max_pixels(source, field)
        source = source.get("url")
    if isinstance(source, str) and (is_url(source) or "image" not in part):
        return ImageUrl(source, max_pixels)
    return ImageBytes(read_picture(source, field), field, max_pixels)


def _max_pixels(part: Mapping[str, Any], field: str) -> int | None:
    """As it is said, or of a detail."""
    detail, max_pixels = part.get("detail"), part.get("max_pixels")
    if detail not in (None, "auto", "low", "high"):
        raise InvalidRequest(f"{detail!r} is none of auto, low and high", field=f"{field}.detail")
    if max_pixels is None:
        return _LOW_DETAIL_PIXELS if detail == "low" else None
    if detail is not None:
        raise InvalidRequest("is there together with detail", field=f"{field}.max_pixels")
    if not isinstance(max_pixels, int) or not 1 <= max_pixels < 2**32:
        raise InvalidRequest("is no number of pixels", field=f"{field}.max_pixels")
    return max_pixels
