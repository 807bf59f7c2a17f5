"""The options that say what an answer has to look like."""

from __future__ import annotations

from coordinator.errors import InvalidFieldError
from coordinator.oip.wishes import Wishes
from core.output_format import FormatKind, OutputFormat

KIND, GUIDE = "guided_decoding_guide_type", "guided_decoding_guide"

_KINDS = {
    "json": FormatKind.JSON_OBJECT,
    "json_schema": FormatKind.JSON_SCHEMA,
    "regex": FormatKind.REGEX,
    "lark_grammar": FormatKind.GRAMMAR,
}


def to_format(wishes: Wishes) -> OutputFormat | None:
    """None where any text will do. Raises InvalidFieldError."""
    if not wishes.has(KIND):
        if wishes.has(GUIDE):
            raise InvalidFieldError(KIND, f"is missing, and {GUIDE} is there")
        return None
    kind = _KINDS.get(wishes.text(KIND))
    if kind is None:
        raise InvalidFieldError(KIND, f"is none of {', '.join(_KINDS)}")
    if wishes.has(GUIDE) == (kind is FormatKind.JSON_OBJECT):
        raise InvalidFieldError(GUIDE, "is for every type but json")
    return OutputFormat(kind, wishes.text(GUIDE))
