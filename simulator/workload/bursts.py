"""What real bursts look like, laid over a workload.

Bursts of pictures last a minute or less; in a token storm prompts grow and the request rate does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from simulator.workload.arrivals import poisson
from simulator.workload.datasets import check_pictures
from simulator.workload.errors import check
from simulator.workload.mix import MixSpec, draw
from simulator.workload.request import Picture, Request

MOST_IMAGE_BURST_S = 60.0


@dataclass(frozen=True, slots=True)
class BurstSpec:
    """Of "images": more pictures, at `factor` times the whole rate. Of "tokens": prompts times `factor`.

    `times` of them begin `every_s` apart: a square wave where that is twice the duration.
    """

    kind: Literal["images", "tokens"]
    start_s: float
    duration_s: float
    factor: float
    pictures: str = "sharegpt-4o"
    output_tokens: int = 64
    times: int = 1
    every_s: float = 0.0

    def check(self) -> None:
        """Raises WorkloadError naming the key."""
        check(self.duration_s > 0, "duration_s", f"should be more than zero, is {self.duration_s:g}")
        check(self.factor > 0, "factor", f"should be more than zero, is {self.factor:g}")
        check(self.output_tokens > 0, "output_tokens", f"should be more than zero, is {self.output_tokens}")
        check(self.times > 0, "times", f"should be more than zero, is {self.times}")
        apart = f"of several should be at least the duration, is {self.every_s:g}"
        check(self.times == 1 or self.every_s >= self.duration_s, "every_s", apart)
        check_pictures(self.pictures)
        if self.kind == "images":
            most = f"a burst of images lasts at most {MOST_IMAGE_BURST_S:g} s, this one {self.duration_s:g}"
            check(self.duration_s <= MOST_IMAGE_BURST_S, "duration_s", most)

    @property
    def starts_s(self) -> list[float]:
        return [self.start_s + number * self.every_s for number in range(self.times)]

    def is_on(self, at_s: float) -> bool:
        return any(start_s <= at_s < start_s + self.duration_s for start_s in self.starts_s)


def with_burst(
    requests: Sequence[Request], spec: BurstSpec, rate_rps: float, seed: int, number: int = 0
) -> list[Request]:
    """The workload with the burst; `number` tells several apart. Sorted by arrival."""
    spec.check()
    if spec.kind == "tokens":
        return [_grown(each, spec.factor) if spec.is_on(each.arrival_s) else each for each in requests]
    rng = np.random.default_rng((seed, number, 0xB0057))
    times = [
        start_s + at_s
        for start_s in spec.starts_s
        for at_s in poisson(rng, rate_rps * spec.factor, spec.duration_s)
    ]
    images = MixSpec(pictures=spec.pictures, text_share=0.0, output_tokens=spec.output_tokens)
    extra = draw(rng, times, images, f"burst{number}-")
    return sorted((*requests, *extra), key=lambda each: each.arrival_s)


def _grown(request: Request, factor: float) -> Request:
    """Text by the factor; of pictures, the number (rounded, at least one)."""
    count = max(1, round(len(request.pictures) * factor)) if request.pictures else 0
    pictures: tuple[Picture, ...] = tuple(
        request.pictures[index % len(request.pictures)] for index in range(count)
    )
    return replace(request, text_tokens=max(1, round(request.text_tokens * factor)), pictures=pictures)
