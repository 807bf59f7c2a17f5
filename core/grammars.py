"""Output formats compiled against a model's tokenizer: which tokens may come next."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from core.format_size import written_out
from core.kept_formats import KeptFormats
from core.output_format import FormatKind, OutputFormat

Mask = np.ndarray[Any, np.dtype[np.bool_]]

_NUM_KEPT = 16
# Whitespace between JSON tokens is bounded, else a model may say nothing else up to its last token.
_WHITESPACE = r"[ \t\n\r]{0,32}"
# The worst formats that were tried take half a second to compile and 0.1 s for a token.
_LIMITS = LLParserLimits(
    initial_lexer_fuel=1_000_000,
    step_lexer_fuel=200_000,
    step_max_items=50_000,
    max_lexer_states=25_000,
    max_grammar_size=100_000,
    max_items_in_row=10_000,
    verbose_errors=False,
)
_MAX_WRITTEN_OUT = 65_536  # letters; or as many as the format itself has


class FormatError(ValueError):
    """A format that cannot be compiled or followed."""


class Matcher:
    """How far one answer has followed its format. Used by one thread at a time."""

    def __init__(self, matcher: LLMatcher, vocab_size: int) -> None:
        self._matcher = matcher
        self._vocab_size = vocab_size
        self._num_taken = 0

    def allowed(self, outputs: Sequence[int]) -> Mask:
        """Which tokens may follow `outputs`, those of earlier calls included: [vocabulary].

        The end token is among them exactly where the answer may end. Raises FormatError.
        """
        for token in outputs[self._num_taken :]:
            self._matcher.consume_token(token)
        self._num_taken = len(outputs)
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        if self._matcher.is_error():
            raise FormatError(_shortened(self._matcher.get_error()))
        mask = np.unpackbits(bits, bitorder="little", count=self._vocab_size).view(np.bool_)
        if not mask.any():
            raise FormatError("no token leads any further")
        return mask


class CompiledFormat:
    """What answers of one format begin with. Any thread may call."""

    def __init__(self, matcher: LLMatcher, vocab_size: int) -> None:
        self._matcher = matcher
        self._vocab_size = vocab_size
        self._lock = threading.Lock()

    def begin(self) -> Matcher:
        """Of one more answer."""
        with self._lock:
            return Matcher(self._matcher.deep_copy(), self._vocab_size)


class Grammars:
    """Compiles formats for one model, and keeps those that were used last (KeptFormats). Any thread may call.

    `folder` has the model's tokenizer.json, which is read when it is first needed. `tenant`: who uses it.
    """

    def __init__(self, folder: Path, vocab_size: int, eos_token_ids: frozenset[int]) -> None:
        self._folder = folder
        self._vocab_size = vocab_size
        self._eos_token_ids = sorted(eos_token_ids)
        self._tokenizer: LLTokenizer | None = None
        self._kept: KeptFormats[CompiledFormat] = KeptFormats(_NUM_KEPT)
        self._lock = threading.Lock()  # of what is kept, never for long
        self._loading = threading.Lock()

    def recall(self, form: OutputFormat, tenant: str = "") -> CompiledFormat | None:
        """None where it is not compiled already."""
        with self._lock:
            return self._kept.find(tenant, form)

    def compile(self, form: OutputFormat, tenant: str = "") -> CompiledFormat:
        """In this thread, where it is not compiled already. Raises FormatError where it cannot be."""
        kept = self.recall(form, tenant)
        if kept is None:
            kept = CompiledFormat(self._compile(form), self._vocab_size)
            with self._lock:
                self._kept.keep(tenant, form, kept)
        return kept

    def matcher(self, form: OutputFormat, tenant: str = "") -> Matcher:
        """As `compile`, at the beginning of an answer."""
        return self.compile(form, tenant).begin()

    def _compile(self, form: OutputFormat) -> LLMatcher:
        with self._loading:
            if self._tokenizer is None:
                self._tokenizer = self._load()
        size, most = written_out(form), max(_MAX_WRITTEN_OUT, len(form.text))
        if size > most:
            raise FormatError(f"has more than {most} letters when its repeats are written out")
        matcher = LLMatcher(self._tokenizer, _grammar(form), log_level=0, limits=_LIMITS)
        if not matcher.is_error():
            matcher.compute_bitmask()  # what every answer begins with, shared by the copies
        if matcher.is_error():
            raise FormatError(_shortened(matcher.get_error()))
        return matcher

    def _load(self) -> LLTokenizer:
        if not self._eos_token_ids:
            raise FormatError("the model has no end token, which an answer of a format ends with")
        path = self._folder / "tokenizer.json"
        if not path.is_file():
            raise FormatError(f"{self._folder}: lacks tokenizer.json")
        return LLTokenizer(path.read_text(), n_vocab=self._vocab_size, eos_token=self._eos_token_ids)


def _grammar(form: OutputFormat) -> str:
    match form.kind:
        case FormatKind.JSON_OBJECT:
            return _json_grammar('{"type": "object"}')
        case FormatKind.JSON_SCHEMA:
            return _json_grammar(form.text)
        case FormatKind.REGEX:
            return LLMatcher.grammar_from_regex(form.text)
        case FormatKind.GRAMMAR:
            return LLMatcher.grammar_from_lark(form.text)


def _json_grammar(schema: str) -> str:
    try:
        return LLMatcher.grammar_from_json_schema(schema, overrides={"whitespace_pattern": _WHITESPACE})
    except ValueError as error:
        raise FormatError(str(error)) from None


def _shortened(text: str) -> str:
    return " ".join(text.split())[:300]
