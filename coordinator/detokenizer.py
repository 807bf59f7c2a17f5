"""Token by token to text: characters only when they are whole, stop strings never shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]
WholeText = Callable[[int], str | None]

_REPLACEMENT = "\ufffd"
# A UTF-8 character has at most four bytes, so at most three of them are a beginning.
_MAX_OPEN_CHARS = 3
# Bytes that never become text are cut loose here, so that the window stays small.
_MAX_NEW_TOKENS = 256


def no_whole_text(_: int) -> str | None:
    """Of a tokenizer whose tokens' texts may depend on their neighbours."""
    return None


class Detokenizer:
    """All pieces together equal `decode` of all tokens.

    `whole_text` gives a token's text where it is the same whatever its neighbours are, as long as what is
    before it is whole, else None. Then a window of recent tokens is decoded again at each step:

        | context | tokens whose text may still change |
                  ^ text up to here is out
    """

    def __init__(self, decode: Decode, whole_text: WholeText = no_whole_text) -> None:
        self._decode = decode
        self._whole_text = whole_text
        self._window: list[int] = []
        self._num_context = 0  # tokens at the window's start that are there for their neighbours only
        self._given = 0  # characters of the window's text that are out
        self._is_whole = True  # all text is out, and ends with a whole character

    def push(self, token_id: int) -> str:
        """The text this token completes; may be empty."""
        if self._is_whole:
            text = self._whole_text(token_id)
            if text is not None:
                # What comes next needs nothing of what is before it: this token did not.
                if self._num_context:
                    self._forget()
                return text
        return self._push_to_window(token_id)

    def flush(self) -> str:
        """What is left at the end, incomplete characters included."""
        text = self._decode(self._window)
        return self._take(text, len(text))

    def _push_to_window(self, token_id: int) -> str:
        self._window.append(token_id)
        text = self._decode(self._window)
        piece = self._take(text, len(text) - _num_open(text))
        num_new = len(self._window) - self._num_context
        self._is_whole = text != "" and not text.endswith(_REPLACEMENT)
        if self._is_whole or num_new > _MAX_NEW_TOKENS:
            self._shift(len(text) - self._given)
        return piece

    def _take(self, text: str, end: int) -> str:
        piece = text[self._given : end]
        self._given = max(self._given, end)
        return piece

    def _shift(self, num_held: int) -> None:
        """What was new becomes context; `num_held` characters of it are still to come out."""
        del self._window[: self._num_context]
        self._num_context = len(self._window)
        self._given = len(self._decode(self._window)) - num_held

    def _forget(self) -> None:
        self._window.clear()
        self._num_context = self._given = 0


class StopMatcher:
    """Holds text back while it may be the beginning of a stop string."""

    def __init__(self, stop_strings: Sequence[str]) -> None:
        self._stop_strings = tuple(stop_strings)
        self._held = ""
        self.matched: str | None = None

    def push(self, text: str) -> str:
        """The text that may be shown; sets `matched` once a stop string is complete."""
        if not self._stop_strings:
            return text
        self._held += text
        found = self._first_match()
        if found is not None:
            position, self.matched = found
            shown, self._held = self._held[:position], ""
            return shown
        return self._release(len(self._held) - self._num_undecided())

    def flush(self) -> str:
        """The answer ended: what was held is no stop string."""
        return self._release(len(self._held))

    def _release(self, end: int) -> str:
        shown, self._held = self._held[:end], self._held[end:]
        return shown

    def _first_match(self) -> tuple[int, str] | None:
        """The match that begins first; at a tie the longer."""
        found = [(self._held.find(stop), stop) for stop in self._stop_strings]
        present = [(position, stop) for position, stop in found if position >= 0]
        return min(present, key=lambda match: (match[0], -len(match[1])), default=None)

    def _num_undecided(self) -> int:
        """Length of the longest end of the held text that begins a stop string."""
        longest = max(len(stop) for stop in self._stop_strings) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            end = self._held[-length:]
            if any(stop.startswith(end) for stop in self._stop_strings):
                return length
        return 0


def _num_open(text: str) -> int:
    """Characters at the end that may be parts of an incomplete one."""
    return min(_MAX_OPEN_CHARS, len(text) - len(text.rstrip(_REPLACEMENT)))
