"""One request of a workload, before anything happened to it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Picture:
    """One media item. `num_tokens` None: by the profile's rule from its size."""

    width_px: int
    height_px: int
    num_tokens: int | None = None
    digest: int | None = None  # equal for equal pictures; None: never seen again

    @property
    def pixels(self) -> int:
        return self.width_px * self.height_px


@dataclass(frozen=True, slots=True)
class Request:
    """Pictures come first in the prompt, then `text_tokens` of text."""

    request_id: str
    arrival_s: float
    text_tokens: int
    output_tokens: int  # that the model will say before it stops
    max_tokens: int  # that the client allows
    pictures: tuple[Picture, ...] = ()
    source: str = "text"  # which kind of traffic it is: what targets and figures are grouped by
    prefix: tuple[int, ...] = ()  # hashes of the prompt's leading granules
    prefix_granule_tokens: int = 512
    made: tuple[int, ...] = ()  # hashes of the granules after those, which the answer fills
