"""Text to token ids and back, without letting a user's text spell control tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

_REPLACEMENT = "\ufffd"


class PromptTokenizer:
    """The model's tokenizer.json, once as it is and once without its added tokens.

    The second encodes text in which a control token's name is only a name.
    """

    def __init__(self, definition: str) -> None:
        self._tokenizer = Tokenizer.from_str(definition)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        added = self._tokenizer.get_added_tokens_decoder()
        self.added_tokens: dict[str, int] = {token.content: token_id for token_id, token in added.items()}
        self._plain = _without_added_tokens(definition)
        longest_first = sorted(self.added_tokens, key=len, reverse=True)
        self._added_pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self._joins_bytes = _joins_bytes(definition)
        self._whole_texts: dict[int, str | None] = {}

    def encode(self, text: str) -> list[int]:
        """As the model's own tools do it: names of control tokens become control tokens."""
        return _ids(self._tokenizer, text)

    def encode_whole(self, text: str) -> list[int]:
        """As `encode`, with what the tokenizer itself puts before and after a text."""
        return _ids(self._tokenizer, text, is_whole=True)

    def encode_plain(self, text: str) -> list[int]:
        """Names of control tokens are text like any other."""
        return _ids(self._plain, text) if text else []

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text without control tokens; ids outside the vocabulary are nothing."""
        return str(self._tokenizer.decode(token_ids, skip_special_tokens=True))

    def whole_text(self, token_id: int) -> str | None:
        """What the token adds to a text that is whole; None where that depends on its neighbours."""
        if token_id not in self._whole_texts:
            text = self.decode([token_id]) if self._joins_bytes else None
            self._whole_texts[token_id] = None if text is None or _REPLACEMENT in text else text
        return self._whole_texts[token_id]

    def piece(self, token_id: int) -> str:
        """The token as the vocabulary writes it; empty outside of it."""
        return self._tokenizer.id_to_token(token_id) or ""

    def find_added(self, text: str) -> list[re.Match[str]]:
        """Where the text spells added tokens, from left to right, the longest at each place."""
        return list(self._added_pattern.finditer(text))


def load_tokenizer(folder: Path) -> PromptTokenizer:
    """Raises ValueError naming the file that is missing or broken."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ValueError(f"{folder}: lacks tokenizer.json")
    try:
        return PromptTokenizer(path.read_text())
    except Exception as error:  # the library raises bare Exception
        raise ValueError(f"{path}: {error}") from error


def _ids(tokenizer: Tokenizer, text: str, *, is_whole: bool = False) -> list[int]:
    """By the library's way for batches, as only that one leaves out where in the text each token lies."""
    ids: list[int] = tokenizer.encode_batch_fast([text], add_special_tokens=is_whole)[0].ids
    return ids


def _joins_bytes(definition: str) -> bool:
    """Whether a text is its tokens' bytes one after the other, whatever they are."""
    decoder = json.loads(definition).get("decoder")
    return decoder is not None and decoder["type"] == "ByteLevel"


def _without_added_tokens(definition: str) -> Tokenizer:
    plain = json.loads(definition)
    plain["added_tokens"] = []
    plain["post_processor"] = None
    return Tokenizer.from_str(json.dumps(plain))
