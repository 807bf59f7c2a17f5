"""What caches hold of a request, as dispatch weighs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from coordinator.policy.work import Work


@dataclass(frozen=True, slots=True)
class Warmth:
    """As the cluster's index has it, which may be behind."""

    prefix_tokens: Mapping[str, int] = field(default_factory=dict)  # leading tokens with KV; best `Prefixes`
    media: tuple[frozenset[str], ...] = ()  # who has each item's embedding, or is about to


COLD = Warmth()


class WarmthSource(Protocol):
    """Asked by dispatch for each request that it weighs; the driver answers from its index."""

    @property
    def version(self) -> int:
        """Goes up when an answer may have changed."""
        ...

    def of(self, work: Work) -> Warmth: ...
