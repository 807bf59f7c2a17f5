"""What the prefix cache is worth in conversations: the same ones over clusters with and without it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.caching.talks import TalkSpec, Turn, play
from cli.load.texts import TextMaker


def compare_talks(
    addresses: Mapping[str, str], spec: TalkSpec, texts: TextMaker, *, rounds: int, seed: int
) -> dict[str, Any]:
    """Per cluster the figures of all rounds, each with users and words of its own; the first is the baseline.

    In a round the clusters have the same conversations, one cluster after the other.
    """
    turns: dict[str, list[list[Turn]]] = {name: [] for name in addresses}
    for number in range(rounds):
        for name, address in addresses.items():
            turns[name].append(asyncio.run(play(address, spec, texts, seed + number)))
    first = next(iter(addresses))
    return {name: _figures(played, turns[first]) for name, played in turns.items()}


def _figures(rounds: Sequence[list[Turn]], baseline: Sequence[list[Turn]]) -> dict[str, Any]:
    ratios = [
        _median_ttft(theirs) / _median_ttft(ours) for ours, theirs in zip(rounds, baseline, strict=True)
    ]
    turns = [turn for played in rounds for turn in played]
    others = [turn for played in baseline for turn in played]
    return {
        "ttft_p50_ms": median(turn.ttft_s for turn in turns) * 1e3,
        "ttft_by_turn_ms": _by_turn(turns),
        "baseline_over_ttft_p50": median(ratios),
        "turns": len(turns),
        "prompt_tokens": sum(turn.prompt_tokens for turn in turns),
        "cached_tokens": sum(turn.cached_tokens for turn in turns),
        "sent_pictures": sum(turn.sent_pictures for turn in turns),
        "encoded_pictures": sum(turn.encoded_pictures for turn in turns),
        "new_pictures": sum(turn.new_pictures for turn in turns),
        "other_answers": _num_different(turns, others),
    }


def _median_ttft(turns: Sequence[Turn]) -> float:
    return median(turn.ttft_s for turn in turns)


def _by_turn(turns: Sequence[Turn]) -> list[float]:
    numbers = sorted({turn.number for turn in turns})
    return [median(turn.ttft_s for turn in turns if turn.number == number) * 1e3 for number in numbers]


def _num_different(turns: Sequence[Turn], others: Sequence[Turn]) -> int:
    """Both in the same order: round by round, turn by turn, user by user."""
    return sum(one.token_ids != other.token_ids for one, other in zip(turns, others, strict=True))
