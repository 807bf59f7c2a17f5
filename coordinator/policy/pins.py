"""What pinned instances take off the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from coordinator.policy.books import InstanceBook
from coordinator.policy.plan import GROUPS
from core.stages import ModalityGroup


def left_by_pinned(
    instances: Iterable[InstanceBook], work: Mapping[ModalityGroup, float]
) -> dict[ModalityGroup, float]:
    """The share of each group's work that is left to instances which are not pinned.

    Every instance that is not drained is taken to carry an even part of all work, whichever stages it
    plays: a pinned one that of its group, a shared one of both in proportion. `work` is in instances.
    """
    present = [book for book in instances if not book.is_drained]
    pinned = [book.group for book in present if book.is_pinned]
    total = sum(work.values())
    left = dict.fromkeys(GROUPS, 1.0)
    if not pinned or total <= 0:
        return left
    for group in GROUPS:
        if work[group] > 0:
            own = pinned.count(group) * total / work[group]
            left[group] = max(0.0, 1 - (own + pinned.count(ModalityGroup.SHARED)) / len(present))
    return left
