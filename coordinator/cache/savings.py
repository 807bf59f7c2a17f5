"""What the caches have spared since the last look, over all instances and their lives."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from coordinator.registry import Instance
from coordinator.stage_messages import CachePool

_Pool = tuple[str, int, CachePool]  # of one life of an instance


@dataclass(frozen=True, slots=True)
class Saved:
    seconds: float = 0.0
    size_bytes: int = 0


class SavingsMeter:
    """Instances count from the start of their process, which may be long before they attached here: what
    they said first is where they are counted from.
    """

    def __init__(self) -> None:
        self._last: dict[_Pool, Saved] = {}

    def take(self, instances: Iterable[Instance]) -> Saved:
        """Of these, since the last call; others are forgotten."""
        now = {
            (each.instance_id, each.info.epoch, counters.pool): Saved(counters.saved_s, counters.hit_bytes)
            for each in instances
            for counters in each.caches
        }
        pairs = [(saved, self._last.get(pool, saved)) for pool, saved in now.items()]
        self._last = now
        return Saved(
            sum(new.seconds - old.seconds for new, old in pairs),
            sum(new.size_bytes - old.size_bytes for new, old in pairs),
        )
