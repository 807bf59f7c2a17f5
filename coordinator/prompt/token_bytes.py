"""Single tokens as bytes, for those who show log probabilities."""

from __future__ import annotations

from typing import Protocol

_REPLACEMENT = "\ufffd"


class Tokenizer(Protocol):
    """The part of PromptTokenizer that is needed here."""

    def decode(self, token_ids: list[int]) -> str: ...

    def piece(self, token_id: int) -> str: ...


def token_bytes(tokenizer: Tokenizer, token_id: int) -> bytes:
    """Exact where a token is a part of a character; a control token's name; empty outside the vocabulary."""
    text = tokenizer.decode([token_id])
    if text and _REPLACEMENT not in text:
        return text.encode()
    piece = tokenizer.piece(token_id)
    if text and all(letter in _BYTES for letter in piece):
        return bytes(_BYTES[letter] for letter in piece)
    return piece.encode()


def _byte_letters() -> dict[str, int]:
    """The letters by which byte-level vocabularies write bytes.

    Printable bytes of Latin-1 stand for themselves, the others for letters from 256 on, in order.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(byte): byte for byte in printable}
    return letters | {chr(256 + index): byte for index, byte in enumerate(others)}


_BYTES = _byte_letters()
