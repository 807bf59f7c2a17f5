"""Text and picture requests mixed, from published statistics."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from simulator.workload.arrivals import gamma
from simulator.workload.datasets import check_pictures, dataset
from simulator.workload.errors import check
from simulator.workload.request import Picture, Request

_RECENT = 256  # pictures that a repeat may be of


@dataclass(frozen=True, slots=True)
class MixSpec:
    """`text_share` of the requests are from the set "text", the others from `pictures`."""

    pictures: str = "sharegpt-4o"
    text_share: float = 0.5
    duration_s: float = 120.0
    arrivals: Literal["poisson", "gamma"] = "poisson"
    cv: float = 1.0  # of the gaps, for "gamma"
    output_tokens: int = 64
    repeat_share: float = 0.0  # of the pictures that were seen lately

    def check(self) -> None:
        """Raises WorkloadError naming the key."""
        check_pictures(self.pictures)
        check(0 <= self.text_share <= 1, "text_share", f"should be from 0 to 1, is {self.text_share:g}")
        check(0 <= self.repeat_share <= 1, "repeat_share", f"should be from 0 to 1, is {self.repeat_share:g}")
        check(self.duration_s > 0, "duration_s", f"should be more than zero, is {self.duration_s:g}")
        check(self.output_tokens > 0, "output_tokens", f"should be more than zero, is {self.output_tokens}")
        check(self.cv > 0, "cv", f"should be more than zero, is {self.cv:g}")
        check(self.arrivals == "gamma" or self.cv == 1, "cv", 'is for arrivals = "gamma"; Poisson\'s is 1')


def mix(spec: MixSpec, rate_rps: float, seed: int) -> list[Request]:
    rng = np.random.default_rng(seed)
    times = gamma(rng, rate_rps, spec.cv, spec.duration_s)
    return draw(rng, times, spec)


def draw(rng: np.random.Generator, times: list[float], spec: MixSpec, prefix: str = "r") -> list[Request]:
    """One request per time; ids begin with `prefix`."""
    repeats = _Repeats(rng, spec.repeat_share)
    requests = []
    for number, arrival_s in enumerate(times):
        name = "text" if rng.random() < spec.text_share else spec.pictures
        text_tokens, pictures = dataset(name).draw(rng)
        requests.append(
            Request(
                request_id=f"{prefix}{number}",
                arrival_s=arrival_s,
                text_tokens=text_tokens,
                output_tokens=spec.output_tokens,
                max_tokens=spec.output_tokens,
                pictures=tuple(repeats.of(picture) for picture in pictures),
                source=name,
            )
        )
    return requests


class _Repeats:
    """Gives pictures digests, some of them those of recent ones."""

    def __init__(self, rng: np.random.Generator, share: float) -> None:
        self._rng = rng
        self._share = share
        self._recent: list[Picture] = []
        self._count = 0

    def of(self, picture: Picture) -> Picture:
        if not self._share:
            return picture
        if self._recent and self._rng.random() < self._share:
            return self._recent[int(self._rng.integers(len(self._recent)))]
        fresh = replace(picture, digest=self._count)
        self._count += 1
        self._recent = [*self._recent[-_RECENT + 1 :], fresh]
        return fresh
