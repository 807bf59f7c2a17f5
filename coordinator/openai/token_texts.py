"""Single tokens as clients see them beside their log probabilities."""

from __future__ import annotations

from collections.abc import Callable


class TokenTexts:
    """Bytes of tokens by id; no more are kept than the vocabulary has."""

    def __init__(self, find: Callable[[int], bytes]) -> None:
        """`find` is asked once per token; see token_bytes."""
        self._find = find
        self._bytes: dict[int, bytes] = {}

    def bytes_of(self, token_id: int) -> bytes:
        """Exact where a token is a part of a character, and a control token's name."""
        known = self._bytes.get(token_id)
        if known is None:
            known = self._bytes[token_id] = self._find(token_id)
        return known

    def text_of(self, token_id: int) -> str:
        """As far as its bytes are characters."""
        return self.bytes_of(token_id).decode(errors="replace")
