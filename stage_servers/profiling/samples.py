"""What was measured, one record per point; seconds are medians over repeats."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from core.costs import StepShape


class StepSample(NamedTuple):
    """One engine step; `kind` is "prefill", "decode" or "mixed"."""

    kind: str
    shape: StepShape
    seconds: float


class SizeSample(NamedTuple):
    """Work whose cost depends on one size: tokens of an encode, pixels, or bytes moved."""

    size: float
    seconds: float


S = TypeVar("S", StepSample, SizeSample)


@dataclass(frozen=True, slots=True)
class Measured:
    """All that a profile is fitted to."""

    steps: list[StepSample] = field(default_factory=list)
    encodes: list[SizeSample] = field(default_factory=list)  # by media tokens
    pixels: list[SizeSample] = field(default_factory=list)  # by pixels of the picture file
    kv_moves: list[SizeSample] = field(default_factory=list)  # by bytes
    embedding_moves: list[SizeSample] = field(default_factory=list)


def least_disturbed(rounds: Sequence[Measured]) -> Measured:
    """Of each point the quickest round: whatever else runs on the machine can only add to it."""
    return Measured(
        steps=_quickest(each.steps for each in rounds),
        encodes=_quickest(each.encodes for each in rounds),
        pixels=_quickest(each.pixels for each in rounds),
        kv_moves=_quickest(each.kv_moves for each in rounds),
        embedding_moves=_quickest(each.embedding_moves for each in rounds),
    )


def _quickest(rounds: Iterable[list[S]]) -> list[S]:
    return [min(same, key=lambda sample: sample.seconds) for same in zip(*rounds, strict=True)]
