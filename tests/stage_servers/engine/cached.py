"""Sequences that use the cache, and what they found there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256

from core.sequence import CacheUse, SequenceSpec
from stage_servers.cache.settings import CacheSettings
from tests.exactness import Question, Tally, make_spec
from tests.stage_servers.engine.conftest import Pair
from tests.stage_servers.engine.harness import Bench

ON = CacheSettings()
USE = CacheUse(bytes(32), "ours")


def ask(
    pair: Pair, question: Question, name: str, *, use: CacheUse | None = USE, max_tokens: int = 40
) -> SequenceSpec:
    spec = make_spec(pair.oracle.family, question, name, max_tokens=max_tokens)
    media = tuple(replace(span, identity=sha256(span.digest).digest()) for span in spec.media)
    return replace(spec, media=media, cache=use)


def answered(bench: Bench, pair: Pair, spec: SequenceSpec, question: Question, *, embeds: bool = True) -> int:
    """Runs the sequence alone and compares its tokens; returns how many of its prompt the cache had."""
    bench.engine.add_prefill(spec, hand_over=False)
    if embeds:
        bench.provide(spec, question)
    bench.run()
    tally = Tally()
    pair.oracle.compare(question, bench.tokens[spec.key], tally)
    tally.check()
    assert bench.num_held == 0
    return len(spec.prompt) - bench.num_computed(spec)


def longer(question: Question, tokens: Sequence[int]) -> Question:
    return replace(question, token_ids=(*question.token_ids, *tokens))


def pictured(pair: Pair, num_pictures: int = 1) -> Question:
    """With text after the pictures."""
    return longer(pair.question(5, num_text=40, pictures=[(112, 112)] * num_pictures), range(30))
