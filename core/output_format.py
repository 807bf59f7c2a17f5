"""What an answer has to look like, as it travels between processes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class FormatKind(Enum):
    """Named as the fields of the wire's OutputFormat."""

    JSON_OBJECT = "json_object"
    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    GRAMMAR = "grammar"


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """The whole answer, end token excluded, is of this form unless max_tokens cuts it short."""

    kind: FormatKind
    text: str = ""  # the schema, expression or grammar; empty for JSON_OBJECT

    @property
    def field(self) -> str:
        """Its path in the client's message."""
        return f"format.{self.kind.value}"
