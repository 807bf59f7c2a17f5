"""An answer's text as it comes, told apart into content and tool calls."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import Any, Protocol

OPEN, CLOSE = "<tool_call>", "</tool_call>"  # around {"name": …, "arguments": {…}}


@dataclass(frozen=True, slots=True)
class CallPiece:
    """A tool call, or more of its arguments: then without id and name."""

    index: int
    arguments: str
    call_id: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Pieces:
    """What some text has added to the answer."""

    text: str = ""
    calls: tuple[CallPiece, ...] = ()


class AnswerReader(Protocol):
    """One per choice: `push` with each piece of text in order, then `finish` once."""

    def push(self, text: str) -> Pieces: ...

    def finish(self) -> Pieces:
        """What was held back, as the answer has ended."""
        ...

    @property
    def ends_as_call(self) -> bool:
        """Whether the answer so far ends in tool calls as its reason."""
        ...


class PlainReader:
    """All is content."""

    ends_as_call = False

    def push(self, text: str) -> Pieces:
        return Pieces(text)

    def finish(self) -> Pieces:
        return Pieces()


class TaggedReader:
    """Content, and calls between OPEN and CLOSE wherever they stand.

    Space before a call is not content; what is no call after all is, as it was written.
    A call comes out when it is whole.
    """

    def __init__(self) -> None:
        self._held = ""
        self._space = ""  # before the OPEN that is held
        self._is_inside = False
        self._num_calls = 0

    @property
    def ends_as_call(self) -> bool:
        return self._num_calls > 0

    def push(self, text: str) -> Pieces:
        self._held += text
        shown, calls = "", []
        while (piece := self._next()) is not None:
            shown += piece if isinstance(piece, str) else ""
            calls += [piece] if isinstance(piece, CallPiece) else []
        return Pieces(shown, tuple(calls))

    def finish(self) -> Pieces:
        """A call whose end was cut off by a stop string is a call."""
        held, self._held = self._held, ""
        if not self._is_inside:
            return Pieces("" if self._num_calls and not held.strip() else held)
        call = self._to_call(held)
        return Pieces(calls=(call,)) if call is not None else Pieces(self._space + OPEN + held)

    def _next(self) -> str | CallPiece | None:
        """What is certain by now; None: all that is held may still become either."""
        if self._is_inside:
            return self._next_call()
        before, tag, after = self._held.partition(OPEN)
        if tag:
            self._held, self._is_inside = after, True
            shown = before.rstrip()
            self._space = before[len(shown) :]
            return shown
        end = _end_of_certain(self._held)
        shown, self._held = self._held[:end], self._held[end:]
        return shown or None

    def _next_call(self) -> str | CallPiece | None:
        body, tag, after = self._held.partition(CLOSE)
        if not tag:
            return None
        self._held, self._is_inside = after, False
        call = self._to_call(body)
        return self._space + OPEN + body + CLOSE if call is None else call

    def _to_call(self, body: str) -> CallPiece | None:
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            return None
        call = to_call(value, self._num_calls)
        self._num_calls += call is not None
        return call


class ArgumentsReader:
    """All of the answer is the arguments of a call that was decided on before."""

    def __init__(self, name: str, *, ends_as_call: bool) -> None:
        self._name: str | None = name
        self.ends_as_call = ends_as_call

    def push(self, text: str) -> Pieces:
        if not text:
            return Pieces()
        name, self._name = self._name, None
        return Pieces(calls=(CallPiece(0, text, None if name is None else new_call_id(), name),))

    def finish(self) -> Pieces:
        return Pieces()


class ListReader:
    """All of the answer is a JSON list of calls; they come out at its end."""

    def __init__(self) -> None:
        self._held = ""
        self.ends_as_call = False

    def push(self, text: str) -> Pieces:
        self._held += text
        return Pieces()

    def finish(self) -> Pieces:
        """A list that was cut short is content, as it is no call."""
        try:
            values = json.loads(self._held)
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, list):
            return Pieces(self._held)
        calls = [to_call(value, index) for index, value in enumerate(values)]
        self.ends_as_call = True
        return Pieces(calls=tuple(call for call in calls if call is not None))


def to_call(value: Any, index: int) -> CallPiece | None:
    """None for what does not say a name and arguments."""
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return CallPiece(index, arguments, new_call_id(), value["name"])


def new_call_id() -> str:
    return f"call_{secrets.token_hex(12)}"


def _end_of_certain(text: str) -> int:
    """Up to the space and the beginning of OPEN that the text may end with."""
    end = len(text)
    for length in range(min(len(OPEN) - 1, len(text)), 0, -1):
        if OPEN.startswith(text[-length:]):
            end -= length
            break
    return len(text[:end].rstrip())
