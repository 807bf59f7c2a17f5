"""A mixed load with a burst of pictures; the simulator and live clusters play the same."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.elasticity.pictures import gradient
from cli.load.texts import TextMaker
from cli.load.workload import PlannedRequest
from simulator.workload.request import Picture, Request

TEXT, IMAGE = "text", "image"
_SPREAD = 0.3  # of text lengths and picture sides, each way


@dataclass(frozen=True, slots=True)
class TraceSpec:
    """Poisson arrivals of two kinds; for a while pictures come `burst_factor` times as often.

    Checked when built; ValueError names the field.
    """

    duration_s: float
    text_rate: float  # requests per second
    image_rate: float
    burst_start_s: float
    burst_s: float
    burst_factor: float
    text_tokens: int  # of text requests, on average
    image_text_tokens: int  # beside pictures
    picture_px: tuple[int, int]  # width and height, on average
    pictures: int = 1  # of one request
    output_tokens: int = 64

    def __post_init__(self) -> None:
        for name in ("duration_s", "text_rate", "image_rate", "burst_factor", "text_tokens", "output_tokens"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: must be above 0, not {getattr(self, name)}")
        if not 0 <= self.burst_start_s <= self.burst_start_s + self.burst_s <= self.duration_s:
            raise ValueError(f"burst_s: {self.burst_s} does not end within the trace")


def make_trace(spec: TraceSpec, seed: int) -> list[Request]:
    """The same for the same seed, in order of arrival."""
    rng = random.Random(seed)
    burst_end_s = spec.burst_start_s + spec.burst_s
    times = [(at_s, TEXT) for at_s in _poisson(rng, spec.text_rate, 0.0, spec.duration_s)]
    times += [(at_s, IMAGE) for at_s in _poisson(rng, spec.image_rate, 0.0, spec.duration_s)]
    if spec.burst_s and spec.burst_factor > 1:
        extra = spec.image_rate * (spec.burst_factor - 1)
        times += [(at_s, IMAGE) for at_s in _poisson(rng, extra, spec.burst_start_s, burst_end_s)]
    return [_request(spec, rng, index, *each) for index, each in enumerate(sorted(times))]


def _request(spec: TraceSpec, rng: random.Random, index: int, at_s: float, kind: str) -> Request:
    is_image = kind == IMAGE
    num_tokens = spec.image_text_tokens if is_image else spec.text_tokens
    return Request(
        request_id=f"r{index}",
        arrival_s=at_s,
        text_tokens=max(1, round(num_tokens * rng.uniform(1 - _SPREAD, 1 + _SPREAD))),
        output_tokens=spec.output_tokens,
        max_tokens=spec.output_tokens,
        pictures=tuple(_picture(spec, rng) for _ in range(spec.pictures if is_image else 0)),
        source=kind,
    )


def _picture(spec: TraceSpec, rng: random.Random) -> Picture:
    factor = rng.uniform(1 - _SPREAD, 1 + _SPREAD)
    width, height = (max(28, round(side * factor / 28) * 28) for side in spec.picture_px)
    return Picture(width, height)


def _poisson(rng: random.Random, rate: float, start_s: float, end_s: float) -> list[float]:
    times = []
    at_s = start_s + rng.expovariate(rate)
    while at_s < end_s:
        times.append(at_s)
        at_s += rng.expovariate(rate)
    return times


def planned(trace: Sequence[Request], texts: TextMaker, seed: int, time_scale: float) -> list[PlannedRequest]:
    """As the load generator sends it; `time_scale` real seconds are one of the trace.

    Pictures of the same digest have the same bytes, others never.
    """
    rng = random.Random(seed)
    numbers = iter(range(seed << 32, (seed + 1) << 32))
    by_digest: defaultdict[int, int] = defaultdict(lambda: next(numbers))

    def draw(item: Picture) -> bytes:
        number = next(numbers) if item.digest is None else by_digest[item.digest]
        return gradient(item.width_px, item.height_px, number)

    return [
        PlannedRequest(
            index=index,
            kind="image" if each.pictures else "text",
            text=texts.make(each.text_tokens, rng),
            images=tuple(map(draw, each.pictures)),
            output_tokens=each.output_tokens,
            at_s=each.arrival_s * time_scale,
        )
        for index, each in enumerate(trace)
    ]
