"""What the model is to read: one of the inputs that say it, and pictures."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.calls import ChatMessage, ImageSource, RawPrompt
from coordinator.errors import InvalidFieldError
from coordinator.oip.chat import from_messages, from_text, to_image
from coordinator.oip.options import Kind, Option
from coordinator.oip.tensors import BYTES, INTS, Tensor
from coordinator.oip.values import to_text, to_value
from coordinator.oip.wishes import SAMPLING_PARAMETERS, only_value

# Inputs that are no options: their datatype and number of elements, -1 being any.
CONTENT_INPUTS = {
    "text_input": (BYTES, 1),
    "messages": (BYTES, 1),
    "prompt": (BYTES, 1),
    "input_ids": ("INT32", -1),
    "image": (BYTES, -1),
    SAMPLING_PARAMETERS: (BYTES, 1),
}

# Exactly one of them is given; pictures go with the first two.
_SAYING = ("text_input", "messages", "prompt", "input_ids")
_IDS = Option(Kind.IDS, "INT32")


@dataclass(frozen=True, slots=True)
class Content:
    source: str  # the input that says it
    images: tuple[ImageSource, ...] = ()
    messages: tuple[ChatMessage, ...] = ()
    prompt: RawPrompt | None = None
    text: str | None = None  # where it is one text


def checked_content(tensor: Tensor) -> Tensor:
    """One of CONTENT_INPUTS. Raises InvalidFieldError."""
    datatype, size = CONTENT_INPUTS[tensor.name]
    if tensor.datatype not in (INTS if datatype in INTS else (datatype,)):
        raise InvalidFieldError(tensor.name, f"is {tensor.datatype}, not {datatype}")
    if size == 1:
        only_value(tensor)
    return tensor


def to_content(tensors: dict[str, Tensor]) -> Content:
    """Raises InvalidFieldError naming the input that is missing, or too much."""
    source = _source_of(tensors)
    images = tuple(to_image(each) for each in _elements(tensors.get("image")))
    if source == "input_ids":
        ids = to_value(source, _IDS, tensors[source].values)
        assert isinstance(ids, tuple)
        token_ids = tuple(each for each in ids if isinstance(each, int))
        return Content(source, prompt=RawPrompt(token_ids=token_ids))
    text = text_of(tensors[source])
    if source == "prompt":
        return Content(source, prompt=RawPrompt(text=text), text=text)
    if source == "messages":
        messages, images = from_messages(text, images)
        return Content(source, images, messages)
    return Content(source, images, from_text(text, images), text=text)


def text_of(tensor: Tensor) -> str:
    return to_text(tensor.name, only_value(tensor))


def _source_of(tensors: dict[str, Tensor]) -> str:
    given = [name for name in _SAYING if name in tensors]
    if not given:
        raise InvalidFieldError(_SAYING[0], f"is missing, and so are {', '.join(_SAYING[1:])}")
    if len(given) > 1:
        raise InvalidFieldError(given[1], f"is given besides {given[0]}")
    if given[0] not in _SAYING[:2] and "image" in tensors:
        raise InvalidFieldError("image", f"does not go with {given[0]}")
    return given[0]


def _elements(tensor: Tensor | None) -> tuple[bytes, ...]:
    return () if tensor is None else tuple(each for each in tensor.values if isinstance(each, bytes))
