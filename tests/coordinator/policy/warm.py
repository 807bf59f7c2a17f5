"""What caches are said to hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from hypothesis import strategies as st

from coordinator.policy.prefixes import Level, Prefixes
from coordinator.policy.warmth import COLD, Warmth
from coordinator.policy.work import Work


@dataclass
class KnownWarmth:
    """By request; `default` of the others."""

    by_request: Mapping[str, Warmth] = field(default_factory=dict)
    default: Warmth = COLD
    version: int = 0

    @classmethod
    def of_waves(cls, waves: Sequence[Sequence[Work]], found: Sequence[Warmth]) -> KnownWarmth:
        """Of the first requests."""
        names = [work.request_id for wave in waves for work in wave]
        return cls(dict(zip(names, found, strict=False)))

    def of(self, work: Work) -> Warmth:
        return self.by_request.get(work.request_id, self.default)


def numbered(tokens: Mapping[str, int], names: Sequence[str]) -> Prefixes:
    """As the index has it, which numbers instances."""
    amounts = {amount for amount in tokens.values() if amount}
    return Prefixes(
        names,
        [
            Level(amount, np.array([at for at, name in enumerate(names) if tokens.get(name) == amount]))
            for amount in amounts
        ],
    )


_names = st.sampled_from([f"i{number}" for number in range(9)])  # some of them not in the cluster
warmths = st.builds(
    Warmth,
    st.dictionaries(_names, st.integers(0, 6000), max_size=6),
    st.lists(st.frozensets(_names, max_size=4), max_size=4).map(tuple),
)
