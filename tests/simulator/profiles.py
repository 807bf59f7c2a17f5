"""A profile of round numbers, for times computed by hand."""

from __future__ import annotations

from core.costs import EncodeCosts, MoveCosts, StepCosts, StepTerm
from core.profile import MediaRule, Profile

# A step takes 1 ms + max(10 ms, 0.1 ms a token); a picture 50 ms + 0.1 ms a token; a byte 1 ns.
ROUND = Profile(
    name="round",
    model="none",
    device="none",
    parallelism="tp1",
    origin="derived",
    sources=("made up for tests",),
    step=StepCosts(1e-3, StepTerm(base_s=0.010), StepTerm(per_new_token_s=1e-4)),
    encode=EncodeCosts(fixed_s=0.050, per_token_s=1e-4, per_pixel_s=1e-9),
    kv_move=MoveCosts(setup_s=2e-3, bytes_per_s=1e9),
    embedding_move=MoveCosts(setup_s=2e-3, bytes_per_s=1e9),
    media=MediaRule("patches", 28, 56 * 56, 1280 * 28 * 28),
    kv_bytes_per_token=1000,
    embedding_bytes_per_token=1000,
    kv_tokens=4096,
    embedding_tokens=4096,
    block_tokens=16,
    chunk_tokens=256,
    max_sequences=64,
)
