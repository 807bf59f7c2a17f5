"""Which CPU cores each instance may use."""

from __future__ import annotations

from collections.abc import Sequence

from core.stages import Roles, Stage


def parse_cores(text: str) -> tuple[int, ...]:
    """(0, 1, 2, 6) from "0-2,6". Raises ValueError naming the option."""
    cores: set[int] = set()
    for part in text.split(","):
        low, dash, high = part.strip().partition("-")
        high = high if dash else low
        if not (low.isdigit() and high.isdigit()) or int(high) < int(low):
            raise ValueError(
                f"cores: {part.strip()!r} in {text!r} is neither a number nor a range such as 0-3"
            )
        cores |= set(range(int(low), int(high) + 1))
    return tuple(sorted(cores))


def assign_cores(cores: Sequence[int], instances: Sequence[Roles]) -> list[tuple[int, ...]]:
    """Disjoint sets of neighbouring cores, one per instance, as equal as they come.

    Left-over cores go to instances that prefill first, since time to first token
    hangs on them. More instances than cores: all share all of them.
    """
    if len(instances) > len(cores):
        return [tuple(cores)] * len(instances)
    share, left_over = divmod(len(cores), len(instances))
    order = sorted(range(len(instances)), key=lambda index: Stage.PREFILL not in instances[index])
    counts = [share + (order.index(index) < left_over) for index in range(len(instances))]
    starts = [sum(counts[:index]) for index in range(len(counts))]
    return [tuple(cores[start : start + count]) for start, count in zip(starts, counts, strict=True)]
