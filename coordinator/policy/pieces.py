"""The pieces of elastic policy that can be switched off alone, to see what each is worth."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum


class Piece(Enum):
    BALANCER_PROACTIVE = "balancer-proactive"
    BALANCER_REACTIVE = "balancer-reactive"
    ALLOCATION = "allocation"
    DECODE_SCALING = "decode-scaling"
    ENCODE_SCALING = "encode-scaling"
    SEARCH = "search"
    LATE_YIELDS = "late-yields"
    HYSTERESIS = "hysteresis"
    W_TUNING = "w-tuning"
    CACHE_AWARE = "cache-aware"

    __hash__ = object.__hash__  # as of Stage: asked for at every tick


Pieces = frozenset[Piece]
ALL_PIECES: Pieces = frozenset(Piece)


def pieces_without(names: Iterable[str]) -> Pieces:
    """All but these. Raises ValueError naming what is no piece."""
    by_name = {piece.value: piece for piece in Piece}
    wrong = sorted(set(names) - by_name.keys())
    if wrong:
        raise ValueError(f"pieces: {', '.join(wrong)} (there are {', '.join(by_name)})")
    return ALL_PIECES - {by_name[name] for name in names}
