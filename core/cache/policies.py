"""Eviction policies by name."""

from __future__ import annotations

from collections.abc import Callable

from core.cache.eviction import EvictionPolicy
from core.cache.lru import Lru
from core.cache.seconds_saved import SecondsSaved

# Made of the tokens that a key stands for.
POLICIES: dict[str, Callable[[int], EvictionPolicy]] = {
    "lru": lambda _: Lru(),
    "seconds-saved": SecondsSaved,
}
