"""What a check found, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any


class Level(Enum):
    OK = "ok"
    NOTE = "note"  # it works, with less than there could be
    PROBLEM = "problem"  # something will not work


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; only what is fine has no mend."""

    level: Level
    subject: str  # "port 50051"
    said: str
    mend: str = ""

    def __post_init__(self) -> None:
        assert self.mend or self.level is Level.OK, f"{self.subject}: {self.said}, and no mend"

    def to_json(self) -> dict[str, Any]:
        """`mend` is null where nothing is to be done."""
        return {
            "level": self.level.value,
            "subject": self.subject,
            "said": self.said,
            "mend": self.mend or None,
        }


def fine(subject: str, said: str) -> Finding:
    return Finding(Level.OK, subject, said)


def note(subject: str, said: str, mend: str) -> Finding:
    return Finding(Level.NOTE, subject, said, mend)


def problem(subject: str, said: str, mend: str) -> Finding:
    return Finding(Level.PROBLEM, subject, said, mend)
