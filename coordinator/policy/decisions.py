"""Why the policies did what they did: the last decisions with the numbers that were weighed."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from heapq import merge

from coordinator.policy.seat import Arm

DISPATCHES = frozenset({"dispatch", "routing", "difference"})  # pieces that say where requests go


@dataclass(frozen=True, slots=True)
class Decision:
    """One choice of one piece of policy; read by `elasticmm why` and the logs."""

    at_s: float  # on the clock of the driver
    piece: str  # "balancer", "prefill allocation", …
    subject: str  # a request or an instance
    choice: str  # in words
    numbers: Mapping[str, float] = field(default_factory=dict)  # what was weighed, unit in the name
    arm: Arm | None = None  # of an experiment, where it is B; None: the main set

    def __str__(self) -> str:
        weighed = ", ".join(f"{name} {value:.4g}" for name, value in self.numbers.items())
        piece = f"{self.arm.value}: {self.piece}" if self.arm else self.piece
        return f"{piece}: {self.subject} {self.choice}" + (f" ({weighed})" if weighed else "")


Told = Decision | Callable[[], Decision]  # hardly any of many dispatches is ever looked at


class DecisionRing:
    """The newest `size` decisions of each piece: many dispatches push out no change of roles."""

    def __init__(self, size: int = 1024) -> None:
        self._size = size
        self._rings: dict[str, deque[tuple[int, Told]]] = {}
        self._count = 0
        self._latest: Told | None = None
        self.counts: Counter[str] = Counter()  # of all ever made, by piece

    def add(self, decision: Decision) -> None:
        self._keep(decision.piece, decision)

    def add_later(self, piece: str, tell: Callable[[], Decision]) -> None:
        """As `add` of what `tell` says: it is asked whenever somebody looks, and always says the same."""
        self._keep(piece, tell)

    @property
    def latest(self) -> Decision | None:
        return None if self._latest is None else _decision(self._latest)

    def about(self, subject: str | None = None, without: frozenset[str] = frozenset()) -> Iterator[Decision]:
        """Those of a request or instance, oldest first; all for None. `without` names pieces left out."""
        rings = (ring for piece, ring in self._rings.items() if piece not in without)
        in_order = merge(*rings, key=lambda entry: entry[0])
        told = (_decision(each) for _, each in in_order)
        return (each for each in told if subject is None or each.subject == subject)

    def __len__(self) -> int:
        return sum(map(len, self._rings.values()))

    def _keep(self, piece: str, told: Told) -> None:
        ring = self._rings.get(piece)
        if ring is None:
            ring = self._rings[piece] = deque(maxlen=self._size)
        ring.append((self._count, told))
        self._count += 1
        self._latest = told
        self.counts[piece] += 1


def _decision(told: Told) -> Decision:
    return told if isinstance(told, Decision) else told()
