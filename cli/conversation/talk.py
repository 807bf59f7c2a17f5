"""What was said so far, and the pictures that the next turn brings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from elasticmm_client import user_message
from elasticmm_client.errors import InvalidRequest
from elasticmm_client.pictures import is_url, read_picture


class Talk:
    """Messages as `Client.generate` takes them. Pictures are read when they are named, and once."""

    def __init__(self, system: str | None = None) -> None:
        self._first = [{"role": "system", "content": system}] if system is not None else []
        self._said: list[dict[str, Any]] = []
        self._pictures: list[str | bytes] = []

    @property
    def num_pictures(self) -> int:
        """That wait for the next turn."""
        return len(self._pictures)

    def add_picture(self, source: str) -> None:
        """For the next turn. Raises InvalidRequest where the file cannot be read."""
        if not source:
            raise InvalidRequest("names no picture", field="/image")
        path = Path(source).expanduser()
        self._pictures.append(source if is_url(source) else read_picture(path, "/image"))

    def ask(self, text: str) -> list[dict[str, Any]]:
        """All messages with this turn, which stands once it is answered."""
        return [*self._first, *self._said, user_message(text, *self._pictures)]

    def answered(self, text: str, answer: str) -> None:
        self._said += [user_message(text, *self._pictures), {"role": "assistant", "content": answer}]
        self._pictures.clear()

    def reset(self) -> None:
        """Forgets all but the system message."""
        self._said.clear()
        self._pictures.clear()
