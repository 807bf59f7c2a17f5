"""A profile to test with."""

from __future__ import annotations

from core.costs import EncodeCosts, MoveCosts, StepCosts, StepTerm
from core.profile import MediaRule, Profile

STEP = StepCosts(
    fixed_s=1e-3,
    bytes=StepTerm(base_s=8e-3, per_sequence_s=1e-6, per_context_token_s=3e-8),
    flops=StepTerm(per_new_token_s=6e-5, per_attended_s=2e-9, per_sequence_s=1e-6),
)
PROFILE = Profile(
    name="test",
    model="some model",
    device="some device",
    parallelism="tp1",
    origin="derived",
    sources=("made up for tests",),
    step=STEP,
    encode=EncodeCosts(fixed_s=2e-3, per_token_s=4e-5, per_token2_s=1e-9, per_pixel_s=1e-8),
    kv_move=MoveCosts(setup_s=1e-3, bytes_per_s=1e11),
    embedding_move=MoveCosts(setup_s=1e-3, bytes_per_s=1e11),
    media=MediaRule("patches", 28, 56 * 56, 1280 * 28 * 28),
    kv_bytes_per_token=57344,
    embedding_bytes_per_token=7168,
    kv_tokens=400_000,
    embedding_tokens=50_000,
    block_tokens=16,
    chunk_tokens=2048,
    max_sequences=256,
)
