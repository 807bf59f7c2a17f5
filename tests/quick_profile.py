"""A profile of an instance that is quick enough for tests."""

from __future__ import annotations

from core.costs import EncodeCosts, MoveCosts, StepCosts, StepTerm
from core.profile import MediaRule, Profile


def make_profile() -> Profile:
    return Profile(
        name="quick",
        model="none",
        device="none",
        parallelism="tp1",
        origin="derived",
        sources=("made for tests",),
        step=StepCosts(1e-4, StepTerm(base_s=1e-3), StepTerm(per_new_token_s=1e-5)),
        encode=EncodeCosts(1e-3, 1e-5),
        kv_move=MoveCosts(1e-4, 1e9),
        embedding_move=MoveCosts(1e-4, 1e9),
        media=MediaRule("patches", 28, 28 * 28, 224 * 224),
        kv_bytes_per_token=1000,
        embedding_bytes_per_token=1000,
        kv_tokens=16 * 200,
        embedding_tokens=16 * 64,
        block_tokens=16,
        chunk_tokens=256,
        max_sequences=16,
    )
