"""What is refused of an output format for what it says; whether it compiles is found with the tokenizer."""

from __future__ import annotations

from coordinator.calls import GenerateCall
from coordinator.checks.inputs import parse_json
from coordinator.errors import InvalidFieldError
from core.output_format import FormatKind

_MAX_FORMAT_BYTES = 64 << 10


def check_format(call: GenerateCall) -> None:
    """Raises InvalidFieldError naming the field that is wrong."""
    if call.format is None:
        return
    field, text = call.format.field, call.format.text
    if call.stop.ignore_eos:
        raise InvalidFieldError("stop.ignore_eos", "an answer of a format ends with the end token")
    if call.format.kind is FormatKind.JSON_OBJECT:
        return
    if not text:
        raise InvalidFieldError(field, "is empty")
    size_bytes = len(text.encode("utf-8", "surrogatepass"))
    if size_bytes > _MAX_FORMAT_BYTES:
        raise InvalidFieldError(field, f"{size_bytes} bytes, limit {_MAX_FORMAT_BYTES}")
    if call.format.kind is FormatKind.JSON_SCHEMA and not isinstance(parse_json(text, field), dict):
        raise InvalidFieldError(field, "is no JSON object")
