"""Kinds of requests by published statistics of data sets.

A source says where a mean comes from; what it leaves open (the spread) is an assumption, named here.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import numpy as np

from simulator.workload.errors import check
from simulator.workload.request import Picture

_SIZE_SPREAD = 0.25  # assumed: sides scale together by a log-normal factor of mean 1
_TEXT_SPREAD = 1.1  # assumed: log-normal prompts, as long-tailed as the source's histogram shows
_MOST_TEXT_TOKENS = 2048


@dataclass(frozen=True, slots=True)
class PictureSet:
    """One picture and a question of so many tokens on average (assumed exponential)."""

    name: str
    width_px: int
    height_px: int
    text_tokens: float
    source: str

    def draw(self, rng: np.random.Generator) -> tuple[int, tuple[Picture, ...]]:
        factor = float(np.exp(rng.normal(-(_SIZE_SPREAD**2) / 2, _SIZE_SPREAD)))
        picture = Picture(max(1, round(self.width_px * factor)), max(1, round(self.height_px * factor)))
        return max(1, round(rng.exponential(self.text_tokens))), (picture,)


@dataclass(frozen=True, slots=True)
class TextSet:
    """Prompts without pictures, log-normal around a mean."""

    name: str
    text_tokens: float
    source: str

    def draw(self, rng: np.random.Generator) -> tuple[int, tuple[Picture, ...]]:
        location = log(self.text_tokens) - _TEXT_SPREAD**2 / 2
        tokens = round(float(np.exp(rng.normal(location, _TEXT_SPREAD))))
        return min(_MOST_TEXT_TOKENS, max(1, tokens)), ()


_PAPER = "ElasticMM (arXiv 2507.10069), section 4.1: mean picture size and mean text tokens"
DATASETS: dict[str, PictureSet | TextSet] = {
    each.name: each
    for each in (
        PictureSet("sharegpt-4o", 802, 652, 9.6, _PAPER),
        PictureSet("visualwebinstruct", 1280, 720, 63.1, _PAPER),
        TextSet(
            "text", 161.31, "Kwon et al., PagedAttention (SOSP 2023), figure 11: ShareGPT, mean input 161.31"
        ),
    )
}


def dataset(name: str) -> PictureSet | TextSet:
    """Raises KeyError for a name that is not known."""
    return DATASETS[name]


def check_pictures(name: str) -> None:
    """Raises WorkloadError, for the key "pictures", where no set of pictures has that name."""
    known = [each.name for each in DATASETS.values() if isinstance(each, PictureSet)]
    check(name in known, "pictures", f"{name!r} is no set of pictures (there are {', '.join(known)})")
