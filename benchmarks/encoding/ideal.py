"""What pipelining encoding and prefill could bring at most."""

from __future__ import annotations

from collections.abc import Sequence


def ideal_ttft_s(encoded_s: Sequence[float], prefill_s: float) -> float:
    """When the last of the pictures is prefilled if each may be as soon as it and those before it are there.

    `encoded_s`: when embeddings are there; `prefill_s`: of all, each takes an equal share.
    """
    share_s, done_s = prefill_s / len(encoded_s), 0.0
    for ready_s in sorted(encoded_s):
        done_s = max(done_s, ready_s) + share_s
    return done_s


def share_of_saving(blocking_s: float, ours_s: float, ideal_s: float) -> float:
    """Of what the ideal saves over waiting for all; 1 is all of it."""
    return (blocking_s - ours_s) / (blocking_s - ideal_s)
