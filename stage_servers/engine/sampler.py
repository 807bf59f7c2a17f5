"""From logits to tokens: greedy for whole batches, and draws that depend on (seed, token index) only."""

from __future__ import annotations

import math
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from core.grammars import Mask
from core.sampling import SamplingParams
from core.sequence import TokenLogprobs
from stage_servers.engine.device import tensor_on

Array = np.ndarray[Any, np.dtype[Any]]

_FIRST_CANDIDATES = 2048  # sorted first for top-p; the whole vocabulary only where these do not suffice
_MASK_64 = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class SampleRow:
    """One row of logits to draw from; index is that of the token to be drawn."""

    params: SamplingParams
    index: int
    prompt: Seq[int]
    outputs: Seq[int]  # read where there are penalties
    allowed: Mask | None = None  # [vocabulary]: all others are out of the question; None: none is


@dataclass(frozen=True, slots=True)
class Drawn:
    token_id: int
    logprobs: TokenLogprobs | None


def sample(logits: torch.Tensor, rows: Seq[SampleRow]) -> list[Drawn | None]:
    """One token per row of `logits` [len(rows), vocabulary]; None where the logits are not numbers."""
    peaks, tokens = _best(logits)
    raw_rows = _on_host(logits, [place for place, row in enumerate(rows) if not _is_best(row)])
    drawn: list[Drawn | None] = []
    for place, row in enumerate(rows):
        if not math.isfinite(peaks[place]):
            drawn.append(None)
            continue
        token, params = tokens[place], row.params
        raw = None
        if place in raw_rows:
            raw = raw_rows[place].double().numpy()
            token = token if _is_plain(row) else _choose(raw, row)
        drawn.append(Drawn(token, _logprobs(raw, token, params.logprobs)))
    return drawn


def _is_plain(row: SampleRow) -> bool:
    """Whether it gets the highest logit."""
    return row.params.is_plain and row.allowed is None


def _is_best(row: SampleRow) -> bool:
    """Whether the highest logit is all that is asked of it."""
    return _is_plain(row) and row.params.logprobs is None


def _on_host(logits: torch.Tensor, places: list[int]) -> dict[int, torch.Tensor]:
    """These rows in host memory, by place: from a device in one copy, and as narrow as they are there."""
    if logits.device.type == "cpu" or not places:
        return {place: logits[place] for place in places}
    return dict(zip(places, logits[tensor_on(logits.device, places, torch.int64)].cpu(), strict=True))


def _best(logits: torch.Tensor) -> tuple[list[float], list[int]]:
    """The highest logit of every row and its token; not a number where a row holds one that is none."""
    if logits.device.type != "cpu":
        values, places = logits.max(dim=-1)
        both = torch.stack([values.double(), places.double()]).tolist()  # waits for the device once
        return both[0], [int(place) for place in both[1]]
    # numpy's argmax is many times as fast as torch's on the CPU.
    array = logits.float().numpy()
    found = array.argmax(axis=-1)
    return array[np.arange(len(array)), found].tolist(), found.tolist()


def uniform(seed: int, index: int) -> float:
    """A number in [0, 1), a function of its arguments alone."""
    key = np.array([seed & _MASK_64, index], dtype=np.uint64)
    return float(np.random.Generator(np.random.Philox(key=key)).random())


def _choose(logits: Array, row: SampleRow) -> int:
    """Biases come first, then penalties; filters and draws are among the allowed tokens alone."""
    params = row.params
    if params.logit_bias:
        logits = biased(logits, params)
    if params.has_penalties:
        logits = penalised(logits, row)
    if row.allowed is None:
        return _draw(logits, row)
    allowed = np.flatnonzero(row.allowed)
    return int(allowed[_draw(logits[allowed], row)])


def _draw(logits: Array, row: SampleRow) -> int:
    """A place in `logits`."""
    params = row.params
    if params.is_greedy:
        return int(logits.argmax())
    tokens, probs = candidates(logits, params)
    cdf = np.cumsum(probs)
    place = int(np.searchsorted(cdf, uniform(params.seed, row.index) * cdf[-1], side="right"))
    return int(tokens[min(place, len(tokens) - 1)])


def biased(logits: Array, params: SamplingParams) -> Array:
    logits = logits.copy()
    tokens, biases = zip(*params.logit_bias, strict=True)
    logits[np.array(tokens)] += np.array(biases)
    return logits


def penalised(logits: Array, row: SampleRow) -> Array:
    """Repetition counts prompt and outputs, presence and frequency the outputs only."""
    params, logits = row.params, logits.copy()
    if params.repetition_penalty != 1.0:
        seen = np.unique(np.array([*row.prompt, *row.outputs], dtype=np.int64))
        values = logits[seen]
        logits[seen] = np.where(
            values > 0, values / params.repetition_penalty, values * params.repetition_penalty
        )
    if row.outputs and (params.presence_penalty or params.frequency_penalty):
        seen, counts = np.unique(np.array(row.outputs, dtype=np.int64), return_counts=True)
        logits[seen] -= params.presence_penalty + params.frequency_penalty * counts
    return logits


def candidates(logits: Array, params: SamplingParams) -> tuple[Array, Array]:
    """Token ids in ascending order and their probabilities (not summing to one) under the filters.

    In this order: temperature, top-k, top-p, min-p; each filter sees what the one before left.
    """
    scaled = logits / params.temperature
    weights = np.exp(scaled - scaled.max())
    tokens = np.arange(len(weights))
    if 0 < params.top_k < len(weights):
        tokens = np.sort(_largest(weights, params.top_k))
        weights = weights[tokens]
    if params.top_p < 1.0:
        kept = np.sort(_nucleus(weights, params.top_p))
        tokens, weights = tokens[kept], weights[kept]
    if params.min_p > 0.0:
        kept = np.flatnonzero(weights >= params.min_p * weights.max())
        tokens, weights = tokens[kept], weights[kept]
    return tokens, weights


def _largest(weights: Array, count: int) -> Array:
    """Places of the `count` largest, largest first, equals in order of place."""
    if count >= len(weights):
        return np.argsort(-weights, kind="stable")
    floor = np.partition(weights, len(weights) - count)[len(weights) - count]
    places = np.flatnonzero(weights >= floor)
    return places[np.argsort(-weights[places], kind="stable")][:count]


def _nucleus(weights: Array, top_p: float) -> Array:
    """Places of the fewest largest weights that hold top_p of the sum."""
    wanted = top_p * weights.sum()
    for count in (min(_FIRST_CANDIDATES, len(weights)), len(weights)):
        places = _largest(weights, count)
        held = np.cumsum(weights[places])
        if held[-1] >= wanted:
            break
    return places[: int(np.searchsorted(held, wanted, side="left")) + 1]


def _logprobs(logits: Array | None, token: int, num_top: int | None) -> TokenLogprobs | None:
    """Under the model's own distribution, before biases, penalties, temperature and formats."""
    if logits is None or num_top is None:
        return None
    total = logits.max() + np.log(np.exp(logits - logits.max()).sum())
    best = _largest(logits, num_top) if num_top > 0 else ()
    return TokenLogprobs(
        float(logits[token] - total), tuple((int(t), float(logits[t] - total)) for t in best)
    )
