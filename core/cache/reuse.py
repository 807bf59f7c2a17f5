"""How soon what was used so will be used again: learned from the ages at which it was."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict

import numpy as np
from numpy.typing import NDArray

USES = 5  # 0, 1, 2, 3, more
KINDS = 6
_CLASSES = USES * KINDS
# Ages from 0, 1, 1.4, 2, 2.8, … 4096 seconds on.
_EDGES_S = np.array([0.0, *(2.0 ** (step / 2) for step in range(25))])
_WIDTHS_S = np.diff(_EDGES_S, append=2 * _EDGES_S[-1])
_BINS = len(_EDGES_S)
_SLOT_S = 4.0  # ages of what was not used again yet are known this well
_PRIOR_S = 1000.0  # a class counts as if so many entry-seconds of the average had been seen of it
_FIRST_LEARNED = 500  # uses
_LEARNED_SHARE = 0.05  # or that many more than ever
_LEARNED_EVERY_S = 1.0  # at most
_MOST_COUNTED = 1e6  # uses; then all counts are halved, so that habits may change

Table = NDArray[np.float64]  # [classes, bins of age]


class ReuseHistory:
    """Remembers the last use of the latest `most_tracked` keys, stored or not: what was evicted counts too.

    An entry's class is how often it was used again before, and the kind of its last user. Per class the
    hazard of reuse at every age is estimated as in a life table (events over time at risk; those not used
    again yet are censored). `worth` is the best rate of hits per second of keeping that any horizon offers:

        worth(age) = max over t of  P(reuse within t | unused until age) / E[time kept until reuse or t]

    which is Gittins' index of the choice "keep or give up" (Gittins 1979); times seconds over bytes it is
    the greatest number of seconds saved per byte-second. Least hit density (Beckmann et al., NSDI 2018)
    takes the rate over the horizon that its own evictions bring about instead; keeping the last use of keys
    that are gone is LRU-K's (O'Neil et al., SIGMOD 1993).
    """

    def __init__(self, most_tracked: int = 1 << 17) -> None:
        self._most_tracked = most_tracked
        self._seen: OrderedDict[bytes, tuple[float, int, int]] = OrderedDict()  # when, uses, class
        self._reused = [[0.0] * _BINS for _ in range(_CLASSES)]
        self._forgotten = [[0.0] * _BINS for _ in range(_CLASSES)]
        self._waiting: Counter[tuple[int, int]] = Counter()  # by class and time slot of the last use
        self._worth: list[list[float]] = [(1 / (1 + _EDGES_S)).tolist()] * _CLASSES
        self._num_reused = 0.0
        self._next_learned = float(_FIRST_LEARNED)
        self._next_learned_s = float("-inf")

    def __len__(self) -> int:
        return len(self._seen)

    def __contains__(self, key: bytes) -> bool:
        return key in self._seen

    def note_use(self, key: bytes, kind: int, now_s: float) -> int:
        """Returns how often it had been used before, as far as that is remembered."""
        uses = 0
        before = self._seen.pop(key, None)
        if before is not None:
            uses = before[1] + 1
            self._end(before, self._reused, now_s)
            self._num_reused += 1
        which = _class_of(uses, kind)
        self._seen[key] = now_s, uses, which
        self._waiting[which, _slot(now_s)] += 1
        if len(self._seen) > self._most_tracked:
            self._end(self._seen.popitem(last=False)[1], self._forgotten, now_s)
        if self._num_reused >= self._next_learned and now_s >= self._next_learned_s:
            self._learn(now_s)
        return uses

    def worth(self, uses: int, kind: int, age_s: float) -> float:
        """Hits per second of keeping what was used so, so long ago."""
        rates = self._worth[_class_of(uses, kind)]
        if age_s < 1:
            return rates[0]
        place = 1 + 2 * math.log2(age_s)  # between two edges
        edge = int(place)
        if edge >= _BINS - 1:
            return rates[-1]
        return rates[edge] + (place - edge) * (rates[edge + 1] - rates[edge])

    def _end(self, seen: tuple[float, int, int], ends: list[list[float]], now_s: float) -> None:
        used_s, _, which = seen
        ends[which][_bin(now_s - used_s)] += 1
        slot = which, _slot(used_s)
        self._waiting[slot] -= 1
        if not self._waiting[slot]:
            del self._waiting[slot]

    def _learn(self, now_s: float) -> None:
        reused, forgotten = np.array(self._reused), np.array(self._forgotten)
        hazard = _hazard(reused, forgotten + self._unused(now_s))
        self._worth = _best_rate(hazard).tolist()
        if self._num_reused > _MOST_COUNTED:
            self._num_reused /= 2
            self._reused, self._forgotten = (reused / 2).tolist(), (forgotten / 2).tolist()
        self._next_learned_s = now_s + _LEARNED_EVERY_S
        self._next_learned = self._num_reused + max(_FIRST_LEARNED, _LEARNED_SHARE * self._num_reused)

    def _unused(self, now_s: float) -> Table:
        """The tracked keys by their present ages."""
        counts = np.zeros((_CLASSES, _BINS))
        for (which, slot), number in self._waiting.items():
            counts[which, _bin(now_s - slot * _SLOT_S)] += number
        return counts


def _class_of(uses: int, kind: int) -> int:
    return min(uses, USES - 1) * KINDS + kind


def _bin(age_s: float) -> int:
    return 0 if age_s < 1 else min(_BINS - 1, 1 + int(2 * math.log2(age_s)))


def _slot(used_s: float) -> int:
    return round(used_s / _SLOT_S)


def _hazard(reused: Table, censored: Table) -> Table:
    """Reuses per second at each age, drawn towards the average of all classes where little was seen."""
    ended = reused + censored
    beyond = ended[:, ::-1].cumsum(axis=1)[:, ::-1] - ended
    at_risk_s = (beyond + ended / 2) * _WIDTHS_S
    average = (reused.sum(axis=0) + 0.01) / (at_risk_s.sum(axis=0) + 100)
    return np.asarray((reused + _PRIOR_S * average) / (at_risk_s + _PRIOR_S))


def _best_rate(hazard: Table) -> Table:
    """For each age the best ratio of reuses to time kept, over all bins that the horizon may end with."""
    reuse = 1 - np.exp(-hazard * _WIDTHS_S)  # within the bin, if unused until then
    kept_s = reuse / hazard
    best = np.zeros_like(hazard)
    for first in range(_BINS):
        unused = np.cumprod(1 - reuse[:, first:], axis=1)
        reached = np.concatenate([np.ones((len(hazard), 1)), unused[:, :-1]], axis=1)
        hits = np.cumsum(reached * reuse[:, first:], axis=1)
        seconds = np.cumsum(reached * kept_s[:, first:], axis=1)
        best[:, first] = (hits / seconds).max(axis=1)
    return best
