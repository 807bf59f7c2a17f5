"""What formats cost: compiled, at the first token, at later ones, and the first while others' masks are made.

    python -m benchmarks.masks [--vocab 151000] [--sequences 16] [--tokens 100] [--json FILE]

The tokenizer is the demo model's, filled up to --vocab with made-up words. Answers are random tokens of those
allowed. "First" is the mask that the end of a prompt waits for; "among" is that of one more answer while as
many others of the same format, as --sequences says, wait for their next ones.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core.families import load_family
from core.grammars import Grammars, Mask, Matcher
from core.output_format import FormatKind, OutputFormat
from core.sampling import SamplingParams
from core.sequence import SequenceSpec
from stage_servers.engine.masks import Masks
from stage_servers.engine.sequence import Sequence

DEMO = Path(__file__).resolve().parent.parent / "models" / "demo" / "checkpoint"
_LETTERS = "etaoinshrdlucmfwypvb" * 8 + "gkqjxz0123456789_-."
_PATTERNS = {f"p{index}": {"type": "string", "pattern": f"^.*a{index}.{{5}}b$"} for index in range(300)}
FORMS = {
    "JSON object": OutputFormat(FormatKind.JSON_OBJECT),
    "one of 4,000 words": OutputFormat(
        FormatKind.JSON_SCHEMA, json.dumps({"enum": [f"word{index}{index * 7}" for index in range(4000)]})
    ),
    "300 patterns": OutputFormat(
        FormatKind.JSON_SCHEMA,
        json.dumps({"type": "object", "properties": _PATTERNS, "additionalProperties": False}),
    ),
    "many states": OutputFormat(FormatKind.REGEX, ".*a.{11}b.*"),
}


def write_tokenizer(folder: Path, vocab_size: int) -> None:
    """The demo model's with words at the end that no merge leads to, which costs masks the same."""
    tokenizer = json.loads((DEMO / "tokenizer.json").read_text())
    vocab: dict[str, int] = tokenizer["model"]["vocab"]
    next_id = 1 + max(*vocab.values(), *(each["id"] for each in tokenizer["added_tokens"]))
    rng = random.Random(0)
    while next_id < vocab_size:
        word = ("Ġ" if rng.random() < 0.4 else "") + "".join(rng.choices(_LETTERS, k=rng.randint(2, 8)))
        if word not in vocab:
            vocab[word] = next_id
            next_id += 1
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


class Answers:
    """Made of random allowed tokens."""

    def __init__(self, eos_token_ids: frozenset[int]) -> None:
        self._eos = list(eos_token_ids)
        self._rng = np.random.default_rng(0)

    def go_on(self, tokens: list[int], mask: Mask) -> bool:
        """False where the answer can only end."""
        mask = mask.copy()
        mask[self._eos] = False
        allowed = np.flatnonzero(mask)
        if allowed.size:
            tokens.append(int(self._rng.choice(allowed)))
        return bool(allowed.size)


def alone_ms(grammars: Grammars, form: OutputFormat, answers: Answers, num_tokens: int) -> dict[str, float]:
    compile_ms = _ms(lambda: grammars.matcher(form))
    matcher, outputs, later = grammars.matcher(form), list[int](), list[float]()
    masks: list[Mask] = []
    first_ms = _ms(lambda: masks.append(matcher.allowed(outputs)))
    while len(outputs) < num_tokens and answers.go_on(outputs, masks.pop()):
        later.append(_ms(lambda: masks.append(matcher.allowed(outputs))))
    return {
        "compile_ms": compile_ms,
        "first_ms": first_ms,
        "later_median_ms": statistics.median(later),
        "later_most_ms": max(later),
    }


def crowded_ms(
    grammars: Grammars, form: OutputFormat, answers: Answers, *, num_sequences: int, num_tokens: int
) -> list[float]:
    """Of the first mask of one more answer, after each token of the others."""
    masks, times = Masks(), list[float]()
    live = [_sequence(grammars.matcher(form)) for _ in range(num_sequences)]
    for sequence in live:
        masks.prepare(sequence)
    for _ in range(num_tokens):
        for sequence in live:
            assert sequence.mask is not None
            answers.go_on(sequence.tokens, sequence.mask.result())
        for sequence in live:
            masks.prepare(sequence)
        times.append(_first_ms(masks, _sequence(grammars.matcher(form))))
    masks.close()
    return times


def measure(vocab_size: int, num_sequences: int, num_tokens: int) -> dict[str, Any]:
    eos = load_family(DEMO).eos_token_ids
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        write_tokenizer(Path(folder), vocab_size)
        for name, form in FORMS.items():
            grammars, answers = Grammars(Path(folder), vocab_size, eos), Answers(eos)
            grammars.matcher(OutputFormat(FormatKind.REGEX, "a"))  # reads the tokenizer
            values = alone_ms(grammars, form, answers, num_tokens)
            times = crowded_ms(grammars, form, answers, num_sequences=num_sequences, num_tokens=num_tokens)
            crowded = {"crowded_median_ms": statistics.median(times), "crowded_most_ms": max(times)}
            found[name] = values | crowded
    return {"vocab_size": vocab_size, "sequences": num_sequences, "tokens": num_tokens, "formats": found}


def _sequence(matcher: Matcher) -> Sequence:
    """As the engine has it, with an empty prompt."""
    spec = SequenceSpec("r", 0, (), SamplingParams(max_tokens=1))
    return Sequence(spec, 0, torch.empty(3, 0), 0, matcher=matcher)


def _first_ms(masks: Masks, sequence: Sequence) -> float:
    def wait() -> None:
        masks.prepare(sequence)
        assert sequence.mask is not None
        sequence.mask.result()

    return _ms(wait)


def _ms(work: Callable[[], object]) -> float:
    start_s = time.perf_counter()
    work()
    return (time.perf_counter() - start_s) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vocab", type=int, default=151_000)
    parser.add_argument("--sequences", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = measure(options.vocab, options.sequences, options.tokens)
    print(f"{'ms':20} compile   first   later (most)   first among {options.sequences} (most)")
    for name, each in result["formats"].items():
        print(
            f"{name:20} {each['compile_ms']:7.1f} {each['first_ms']:7.2f} {each['later_median_ms']:7.2f} "
            f"({each['later_most_ms']:.1f}) {each['crowded_median_ms']:13.2f} ({each['crowded_most_ms']:.2f})"
        )
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
