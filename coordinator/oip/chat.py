"""The inputs `text_input`, `messages` and `image` as a conversation."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator

from coordinator.calls import ChatMessage, ChatPart, ImageSource
from coordinator.counts import check_num_pieces
from coordinator.errors import InvalidFieldError
from coordinator.oip.values import from_json, shortened, to_text

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


def from_messages(text: str, images: tuple[ImageSource, ...]) -> tuple[ChatMessage, ...]:
    """A JSON array of {"role", "content"}; content is text, or an array of parts.

    A part's type is text, image_url or image, which stands for the next element of `image`.
    Raises InvalidFieldError with the path.
    """
    messages = from_json("messages", text)
    if not isinstance(messages, list):
        raise InvalidFieldError("messages", "is no JSON array")
    check_num_pieces(len(messages), map(_num_inside, messages))
    left = iter(images)
    chat = tuple(_to_message(f"messages[{i}]", each, left) for i, each in enumerate(messages))
    if (num_left := len(list(left))) > 0:
        raise InvalidFieldError("image", f"{num_left} of {len(images)} have no part in messages")
    return chat


def _num_inside(message: object) -> int:
    content = message.get("content") if isinstance(message, dict) else None
    return len(content) if isinstance(content, list) else 1


def _to_message(path: str, message: object, images: Iterator[ImageSource]) -> ChatMessage:
    fields = _object(path, message, {"role", "content"})
    role = to_text(f"{path}.role", fields.get("role"))
    content = fields.get("content")
    if isinstance(content, list):
        parts = tuple(_to_part(f"{path}.content[{j}]", each, images) for j, each in enumerate(content))
    else:
        parts = (ChatPart(text=to_text(f"{path}.content", content)),)
    return ChatMessage(role, parts)


def _to_part(path: str, part: object, images: Iterator[ImageSource]) -> ChatPart:
    fields = _object(path, part, {"type", "text", "image_url"})
    match fields.get("type"):
        case "text":
            _object(path, part, {"type", "text"})
            return ChatPart(text=to_text(f"{path}.text", fields.get("text")))
        case "image_url":
            _object(path, part, {"type", "image_url"})
            return ChatPart(image=_from_url(f"{path}.image_url", fields.get("image_url")))
        case "image":
            _object(path, part, {"type"})
            return ChatPart(image=_next_image(path, images))
    raise InvalidFieldError(f"{path}.type", "is none of text, image_url and image")


def _from_url(path: str, image_url: object) -> ImageSource:
    return ImageSource(url=to_text(f"{path}.url", _object(path, image_url, {"url"}).get("url")))


def _next_image(path: str, images: Iterator[ImageSource]) -> ImageSource:
    image = next(images, None)
    if image is None:
        raise InvalidFieldError(path, "has no element in image")
    return image


def _object(path: str, given: object, known: set[str]) -> dict[str, object]:
    """Raises InvalidFieldError unless it is a JSON object with none but known keys."""
    if not isinstance(given, dict):
        raise InvalidFieldError(path, "is no JSON object")
    for key in given:
        if key not in known:
            raise InvalidFieldError(f"{path}.{shortened(key)}", "is not known here")
    return given
