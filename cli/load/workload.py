"""Which requests a run sends, decided before it starts."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from cli.load.pictures import make_picture
from cli.load.texts import TextMaker

Kind = Literal["text", "image"]


@dataclass(frozen=True, slots=True)
class WorkloadSpec:
    """Checked when built; ValueError names the option."""

    num_requests: int
    input_tokens: int = 512  # of the text; template and media tokens come on top
    output_tokens: int = 64
    image_share: float = 0.0  # of requests that carry pictures
    images_per_request: int = 1
    image_size: tuple[int, int] = (448, 448)  # pixels, width and height
    image_input_tokens: int | None = None  # text tokens beside pictures; None: input_tokens
    rate: float | None = None  # requests per second, Poisson; None: closed loop
    concurrency: int = 8  # of the closed loop

    def __post_init__(self) -> None:
        for name in ("num_requests", "input_tokens", "output_tokens", "images_per_request", "concurrency"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: at least 1, not {getattr(self, name)}")
        if not 0 <= self.image_share <= 1:
            raise ValueError(f"image_share: {self.image_share} is not between 0 and 1")
        if self.rate is not None and self.rate <= 0:
            raise ValueError(f"rate: must be above 0, not {self.rate}")


@dataclass(frozen=True, slots=True)
class PlannedRequest:
    index: int
    kind: Kind
    text: str
    images: tuple[bytes, ...]
    output_tokens: int
    at_s: float | None  # after the start of the run; None: when a place is free


def plan_requests(spec: WorkloadSpec, texts: TextMaker, seed: int) -> list[PlannedRequest]:
    """The same for the same seed. Picture requests are spread evenly, arrivals are exponential."""
    rng = random.Random(seed)
    planned, at_s = [], 0.0
    for index in range(spec.num_requests):
        is_text = _kind(index, spec.image_share) == "text"
        num_tokens = spec.input_tokens if is_text else (spec.image_input_tokens or spec.input_tokens)
        num_images = 0 if is_text else spec.images_per_request
        request = PlannedRequest(
            index=index,
            kind="text" if is_text else "image",
            text=texts.make(num_tokens, rng),
            images=tuple(make_picture(*spec.image_size, rng) for _ in range(num_images)),
            output_tokens=spec.output_tokens,
            at_s=at_s if spec.rate else None,
        )
        planned.append(request)
        at_s += rng.expovariate(spec.rate) if spec.rate else 0.0
    return planned


def _kind(index: int, image_share: float) -> Kind:
    """The first `n` requests hold floor(n * share) picture requests, for every n."""
    return "image" if int((index + 1) * image_share) > int(index * image_share) else "text"
