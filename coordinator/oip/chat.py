"""The inputs `text_input`, `messages` and `image` as a conversation."""

from __future__ import annotations

import base64
import re
from dataclasses import replace

from coordinator.calls import LOW_DETAIL_PIXELS, ChatMessage, ChatPart, ImageSource
from coordinator.checks.counts import check_num_pieces
from coordinator.errors import InvalidFieldError
from coordinator.oip.tools import to_tool_calls
from coordinator.oip.values import from_json, to_object, to_text

_URL_STARTS = (b"http://", b"https://", b"data:")
# No picture file looks like this: each kind has bytes early on that are not in this alphabet.
_BASE64 = re.compile(rb"[A-Za-z0-9+/]+={0,2}")


def to_image(element: bytes) -> ImageSource:
    """A URL, a picture file in base64, or the file itself."""
    if element.startswith(_URL_STARTS):
        return ImageSource(url=to_text("image", element))
    if len(element) % 4 == 0 and _BASE64.fullmatch(element):
        return ImageSource(data=base64.b64decode(element))
    return ImageSource(data=element)


def from_text(text: str, images: tuple[ImageSource, ...]) -> tuple[ChatMessage, ...]:
    """One message of the user's: all pictures, then the text."""
    parts = (*(ChatPart(image=image) for image in images), ChatPart(text=text))
    return (ChatMessage("user", parts),)


def from_messages(
    text: str, images: tuple[ImageSource, ...]
) -> tuple[tuple[ChatMessage, ...], tuple[ImageSource, ...]]:
    """A JSON array of {"role", "content"}; content is text, or an array of parts.

    An assistant's may have "tool_calls", and no content then; a tool's has "tool_call_id". A part's type is
    text, image_url or image, which stands for the next element of `image`. Returns the messages, and the
    elements as they are in there. Raises InvalidFieldError with the path.
    """
    messages = from_json("messages", text)
    if not isinstance(messages, list):
        raise InvalidFieldError("messages", "is no JSON array")
    check_num_pieces(len(messages), map(_num_inside, messages))
    elements = _Elements(images)
    chat = tuple(_to_message(f"messages[{i}]", each, elements) for i, each in enumerate(messages))
    if (num_left := len(images) - len(elements.used)) > 0:
        raise InvalidFieldError("image", f"{num_left} of {len(images)} have no part in messages")
    return chat, tuple(elements.used)


def _num_inside(message: object) -> int:
    content = message.get("content") if isinstance(message, dict) else None
    return len(content) if isinstance(content, list) else 1


class _Elements:
    """Those of `image`, handed out in order; `used` has them as the messages have them."""

    def __init__(self, images: tuple[ImageSource, ...]) -> None:
        self._left = iter(images)
        self.used: list[ImageSource] = []

    def take(self, path: str, detail: object) -> ImageSource:
        image = next(self._left, None)
        if image is None:
            raise InvalidFieldError(path, "has no element in image")
        self.used.append(_detailed(path, image, detail))
        return self.used[-1]


def _to_message(path: str, message: object, images: _Elements) -> ChatMessage:
    fields = to_object(path, message, {"role", "content", "tool_calls", "tool_call_id"})
    role = to_text(f"{path}.role", fields.get("role"))
    calls = to_tool_calls(f"{path}.tool_calls", fields.get("tool_calls"))
    answered = fields.get("tool_call_id")
    answered_id = "" if answered is None else to_text(f"{path}.tool_call_id", answered)
    content = fields.get("content")
    if isinstance(content, list):
        parts = tuple(_to_part(f"{path}.content[{j}]", each, images) for j, each in enumerate(content))
    elif content is None and calls:
        parts = ()
    else:
        parts = (ChatPart(text=to_text(f"{path}.content", content)),)
    return ChatMessage(role, parts, calls, answered_id)


def _to_part(path: str, part: object, images: _Elements) -> ChatPart:
    fields = to_object(path, part, {"type", "text", "image_url", "detail"})
    match fields.get("type"):
        case "text":
            to_object(path, part, {"type", "text"})
            return ChatPart(text=to_text(f"{path}.text", fields.get("text")))
        case "image_url":
            to_object(path, part, {"type", "image_url"})
            return ChatPart(image=_from_url(f"{path}.image_url", fields.get("image_url")))
        case "image":
            detail = to_object(path, part, {"type", "detail"}).get("detail")
            return ChatPart(image=images.take(path, detail))
    raise InvalidFieldError(f"{path}.type", "is none of text, image_url and image")


def _from_url(path: str, image_url: object) -> ImageSource:
    fields = to_object(path, image_url, {"url", "detail"})
    return _detailed(path, ImageSource(url=to_text(f"{path}.url", fields.get("url"))), fields.get("detail"))


def _detailed(path: str, image: ImageSource, detail: object) -> ImageSource:
    """Raises InvalidFieldError for a detail that is none of OpenAI's."""
    if detail not in (None, "auto", "low", "high"):
        raise InvalidFieldError(f"{path}.detail", "is none of auto, low and high")
    return replace(image, max_pixels=LOW_DETAIL_PIXELS) if detail == "low" else image
