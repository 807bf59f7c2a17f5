"""Traces of the Azure LLM services: one request a line, or the per-minute tables derived from one."""

from __future__ import annotations

from bisect import bisect_left
from math import isqrt
from pathlib import Path

import numpy as np

from simulator.workload.errors import check
from simulator.workload.lines import Order, number, read_table, stamp_ns, whole
from simulator.workload.request import Picture, Request

LLM_HEADER = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
LMM_HEADER = ("TIMESTAMP", "NumImages", "ContextTokens", "GeneratedTokens")
MINUTES_HEADER = ("minute", "timestamp", "requests_exact", "text_est", "image_est")
QUANTILES_HEADER = ("field", "modality", "percentile", "value")
IMAGES_HEADER = ("NumImages_leq", "cdf_percent_of_image_requests")
# The trace has no sizes. 1024x1024 pixels are 765 tokens by the published rule of the service's model family.
_SIDE_PX = 1024
_IMAGE_TOKENS = 765


def load_llm(path: Path, max_tokens: int) -> list[Request]:
    """Azure LLM 2023 (code, conversation): text only. Seconds from the first line."""
    order = Order(10**9)
    requests: list[Request] = []
    for place, (stamp, context, generated) in read_table(path, LLM_HEADER):
        arrival_s = order.since_first(stamp_ns(stamp, place, "TIMESTAMP"), place)
        text_tokens = whole(context, place, "ContextTokens", 1)
        outputs = whole(generated, place, "GeneratedTokens", 1)
        requests.append(_request(len(requests), arrival_s, text_tokens, outputs, 0, max_tokens=max_tokens))
    return requests


def load_lmm(path: Path, max_tokens: int) -> list[Request]:
    """Azure LMM. NumImages has jumps at perfect squares only: its root is taken as the number of pictures."""
    order = Order(10**9)
    requests: list[Request] = []
    for place, (stamp, images, context, generated) in read_table(path, LMM_HEADER):
        arrival_s = order.since_first(stamp_ns(stamp, place, "TIMESTAMP"), place)
        count = isqrt(whole(images, place, "NumImages"))
        tokens = whole(context, place, "ContextTokens", 1)
        outputs = whole(generated, place, "GeneratedTokens", 1)
        requests.append(_request(len(requests), arrival_s, tokens, outputs, count, max_tokens=max_tokens))
    return requests


def load_minutes(path: Path, quantiles: Path, images: Path, max_tokens: int, seed: int) -> list[Request]:
    """The LMM trace as its per-minute counts and the published distributions say it.

    Within a minute, arrivals are uniform; text and picture requests are told apart by the minute's estimated
    share; lengths are drawn from the percentiles, picture counts from the CDF (the root of NumImages).
    """
    rng = np.random.default_rng(seed)
    lengths = _Lengths(quantiles, images)
    requests: list[Request] = []
    for at, (place, row) in enumerate(read_table(path, MINUTES_HEADER)):
        minute = whole(row[0], place, "minute")
        check(minute == at, place, f"minute should be {at}, is {minute}")
        count = whole(row[2], place, "requests_exact")
        text, image = number(row[3], place, "text_est"), number(row[4], place, "image_est")
        share = image / (text + image) if text + image else 0.0
        for second in np.sort(rng.uniform(0, 60, count)).tolist():
            modality = "image" if rng.random() < share else "text"
            tokens, outputs = lengths.draw(rng, modality)
            pictures = lengths.pictures(rng) if modality == "image" else 0
            requests.append(
                _request(
                    len(requests), 60 * minute + second, tokens, outputs, pictures, max_tokens=max_tokens
                )
            )
    return requests


class _Lengths:
    """Inverse distribution functions of the digitised tables."""

    def __init__(self, quantiles: Path, images: Path) -> None:
        self._values: dict[tuple[str, str], tuple[list[float], list[float]]] = {}
        for place, (field, modality, percentile, value) in read_table(quantiles, QUANTILES_HEADER):
            shares, values = self._values.setdefault((field, modality), ([], []))
            _append_rising(shares, _share(percentile, place, "percentile"), place, "percentile")
            _append_rising(values, number(value, place, "value"), place, "value")
        wanted = {
            (field, kind) for field in ("ContextTokens", "GeneratedTokens") for kind in ("text", "image")
        }
        lacking = ", ".join(" of ".join(each) for each in sorted(wanted - self._values.keys()))
        check(not lacking, str(quantiles), f"lacks {lacking}")
        self._counts: list[int] = []
        self._cdf: list[float] = []
        for place, (most, percent) in read_table(images, IMAGES_HEADER):
            self._counts.append(isqrt(whole(most, place, "NumImages_leq", 1)))
            share = _share(percent, place, "cdf_percent_of_image_requests")
            _append_rising(self._cdf, share, place, "cdf_percent_of_image_requests")
        check(bool(self._cdf), str(images), "is empty")

    def draw(self, rng: np.random.Generator, modality: str) -> tuple[int, int]:
        """Context and generated tokens, drawn independently."""
        context, generated = (
            float(np.interp(rng.random(), *self._values[field, modality]))
            for field in ("ContextTokens", "GeneratedTokens")
        )
        return max(1, round(context)), max(1, round(generated))

    def pictures(self, rng: np.random.Generator) -> int:
        return self._counts[min(bisect_left(self._cdf, rng.random()), len(self._counts) - 1)]


def _share(percent: str, place: str, name: str) -> float:
    share = number(percent, place, name) / 100
    check(share <= 1, place, f"{name} should be at most 100, is {percent}")
    return share


def _append_rising(values: list[float], value: float, place: str, name: str) -> None:
    check(not values or value >= values[-1], place, f"{name} is under that of the row before")
    values.append(value)


def _request(
    at: int, arrival_s: float, context_tokens: int, outputs: int, num_pictures: int, *, max_tokens: int
) -> Request:
    """Pictures take their tokens out of the context, and leave at least one for text."""
    each = min(_IMAGE_TOKENS, (context_tokens - 1) // num_pictures) if num_pictures else 0
    count = num_pictures if each else 0
    return Request(
        request_id=f"r{at}",
        arrival_s=arrival_s,
        text_tokens=context_tokens - count * each,
        output_tokens=min(outputs, max_tokens),
        max_tokens=max_tokens,
        pictures=(Picture(_SIDE_PX, _SIDE_PX, each),) * count,
        source="image" if count else "text",
    )
