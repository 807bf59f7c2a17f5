"""Pictures that come again: which are the same is not recorded anywhere, so it is assumed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from simulator.workload.errors import check
from simulator.workload.request import Picture, Request


@dataclass(frozen=True, slots=True)
class RepeatSpec:
    """`share` of the pictures are of `most` popular ones, the others never come again.

    Popularity is Zipf's, the k-th most popular one as often as k ** -exponent: requests for things on the
    web have exponents of 0.64 to 0.83 (Breslau et al., INFOCOM 1999).
    """

    share: float = 0.5
    most: int = 1000
    exponent: float = 0.8

    def check(self) -> None:
        """Raises WorkloadError naming the key."""
        check(0 <= self.share <= 1, "share", f"should be from 0 to 1, is {self.share:g}")
        check(1 <= self.most <= 10**6, "most", f"should be from 1 to 1,000,000, is {self.most}")
        is_fine = 0 <= self.exponent <= 10
        check(is_fine, "exponent", f"should be from 0 to 10, is {self.exponent:g}")


def with_repeats(requests: Sequence[Request], spec: RepeatSpec, seed: int) -> list[Request]:
    """A popular picture has the size of the first one that stands for it, so that sizes stay as they are."""
    rng = np.random.default_rng((seed, 0x5EE))
    cdf = np.cumsum(np.arange(1, spec.most + 1, dtype=np.float64) ** -spec.exponent)
    popular: dict[int, Picture] = {}
    count = 0

    def repeated(picture: Picture) -> Picture:
        nonlocal count
        count += 1
        if rng.random() >= spec.share:
            return replace(picture, digest=spec.most + count)
        rank = int(np.searchsorted(cdf, rng.random() * cdf[-1], side="right"))
        return popular.setdefault(rank, replace(picture, digest=rank))

    return [
        replace(each, pictures=tuple(map(repeated, each.pictures))) if each.pictures else each
        for each in requests
    ]
