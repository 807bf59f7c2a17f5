"""Which instance is to play what next, so that all pairs of role sets and all groups come up."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import permutations

from elasticmm_client.plan import Assignment, PlannedInstance

_NAMES = ("encode", "prefill", "decode")
ROLE_SETS = tuple(
    tuple(name for bit, name in enumerate(_NAMES) if number >> bit & 1)
    for number in range(1, 2 ** len(_NAMES))
)
GROUPS = ("text", "multimodal", "shared")
ALL_PAIRS = frozenset(permutations(ROLE_SETS, 2))
ALL_GROUP_PAIRS = frozenset(permutations(GROUPS, 2))


class PinChooser:
    """Draws pins, those that bring a new pair of role sets first; `note` is told of what was done."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self.pairs: set[tuple[tuple[str, ...], tuple[str, ...]]] = set()
        self.group_pairs: set[tuple[str, str]] = set()

    def candidates(self, instances: Sequence[PlannedInstance]) -> list[tuple[str, Assignment]]:
        """All pins that would change something, in the order to try them in."""
        found = [
            (instance, Assignment(roles, group))
            for instance in instances
            for roles in ROLE_SETS
            for group in GROUPS
            if Assignment(roles, group) != instance.present
        ]
        self._rng.shuffle(found)
        found.sort(key=lambda pin: self._is_known(pin[0].present, pin[1]))
        return [(instance.id, after) for instance, after in found]

    def note(self, before: Assignment, after: Assignment) -> None:
        if before.roles != after.roles:
            self.pairs.add((before.roles, after.roles))
        if before.group != after.group:
            self.group_pairs.add((before.group, after.group))

    def _is_known(self, before: Assignment, after: Assignment) -> bool:
        return before.roles == after.roles or (before.roles, after.roles) in self.pairs
