"""The rule by which a sampled token may differ from that of an undisturbed run: its draw lay within rounding.

Logits depend in their last bits on what else a step computes. If each is off by at most `tolerance`, each
weight is off by a factor between exp(-slack) and exp(slack), where slack = tolerance / temperature, times
what the repetition penalty makes of it. An edge of the distribution, with weights A below it and B above,
then lies between A exp(-slack) / (A exp(-slack) + B exp(slack)) and the same with the signs turned.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from core.sampling import SamplingParams
from core.sequence import SequenceSpec
from stage_servers.engine import engine
from stage_servers.engine.model import Model
from stage_servers.engine.sampler import Array, Drawn, SampleRow, penalised, sample, uniform
from tests.exactness import Question, Tally
from tests.stage_servers.engine.harness import Bench, answer_all

LOGIT_ROUNDING = 2e-5  # moved draws were seen to need up to 1.7e-5


def compare_sampled(
    model: Model,
    question: Question,
    spec: SequenceSpec,
    token_ids: tuple[int, ...],
    alone: tuple[int, ...],
    *,
    tally: Tally,
) -> None:
    """Asserts that `token_ids` are those of an engine `alone`, but for draws that rounding can move.

    Those are counted, and what comes after one must follow from it.
    """
    assert len(token_ids) == len(alone)
    tally.num_tokens += len(token_ids)
    while token_ids != alone:
        place = next(i for i, pair in enumerate(zip(token_ids, alone, strict=True)) if pair[0] != pair[1])
        note = f"sampled token {place}: {token_ids[place]} for {alone[place]}"
        row = SampleRow(spec.sampling, place, spec.prompt, token_ids[:place])
        logits = next_logits(model, question, replace(spec, outputs=token_ids[:place]))
        assert could_be_drawn(logits, row, token_ids[place]), note
        tally.num_ties += 1
        tally.notes.append(note)
        alone = _continued(model, question, replace(spec, outputs=token_ids[: place + 1]))


def next_logits(model: Model, question: Question, spec: SequenceSpec) -> Array:
    """What an engine with nothing else to do draws the token after the outputs from, [vocabulary]."""
    seen: list[torch.Tensor] = []

    def keep(logits: torch.Tensor, rows: Sequence[SampleRow]) -> list[Drawn | None]:
        seen.extend(logits)
        return sample(logits, rows)

    only_next = replace(spec.sampling, max_tokens=len(spec.outputs) + 1)
    with patch.object(engine, "sample", keep):
        answer_all(Bench(model), [replace(spec, sampling=only_next)], [question])
    (logits,) = seen
    return logits.double().cpu().numpy()


def _continued(model: Model, question: Question, spec: SequenceSpec) -> tuple[int, ...]:
    """The outputs and what an engine with nothing else to do adds to them."""
    if len(spec.outputs) == spec.sampling.max_tokens:
        return spec.outputs
    bench = Bench(model)
    answer_all(bench, [spec], [question])
    return (*spec.outputs, *bench.tokens[spec.key])


def could_be_drawn(logits: Array, row: SampleRow, token_id: int, tolerance: float = LOGIT_ROUNDING) -> bool:
    """Whether the sampler could draw `token_id` if `logits` [vocabulary] were off by up to `tolerance`.

    `row` must be that of the undisturbed run: its index, and the outputs before it.
    """
    params = row.params
    logits = penalised(np.asarray(logits, dtype=np.float64), row)
    tolerance *= max(params.repetition_penalty, 1 / params.repetition_penalty)
    if params.is_greedy:
        return bool(logits[token_id] >= logits.max() - 2 * tolerance)
    weights = np.exp((logits - logits.max()) / params.temperature)
    slack, number = tolerance / params.temperature, uniform(params.seed, row.index)
    return any(
        _holds(weights[kept], kept == token_id, number, slack)
        for kept in candidate_sets(weights, params, slack)
        if token_id in kept
    )


def _holds(weights: Array, is_token: Array, number: float, slack: float) -> bool:
    """Whether the token's part of the distribution, as wide as `slack` can make it, holds `number`."""
    place = int(is_token.argmax())
    first = _share(weights[:place].sum(), weights[place:].sum(), -slack)
    end = _share(weights[: place + 1].sum(), weights[place + 1 :].sum(), slack)
    return bool(first <= number < end)


def _share(part: Any, rest: Any, slack: float) -> Any:
    """The share of `part` in both, when it grows by `slack` while the rest shrinks by as much."""
    return part * math.exp(slack) / (part * math.exp(slack) + rest * math.exp(-slack))


def candidate_sets(weights: Array, params: SamplingParams, slack: float) -> Iterator[Array]:
    """Token ids, ascending, of every set that the filters may keep.

    Each filter keeps some number of the largest, so all of them together do: what is in doubt is that number,
    and which of two nearly equal tokens is the larger.
    """
    order = np.argsort(-weights, kind="stable")
    ranked = weights[order]
    for count in _possible_counts(ranked, params, slack):
        best_outside = ranked[count] if count < len(ranked) else 0.0
        num_sure = int((ranked > best_outside * math.exp(2 * slack)).sum())
        num_possible = int((ranked >= ranked[count - 1] * math.exp(-2 * slack)).sum())
        for chosen in combinations(order[num_sure:num_possible], count - num_sure):
            yield np.sort(np.array([*order[:num_sure], *chosen]))


def _possible_counts(ranked: Array, params: SamplingParams, slack: float) -> range:
    """How many of the weights, largest first, the filters may keep."""
    least = most = min(params.top_k or len(ranked), len(ranked))
    if params.top_p < 1.0:
        held = np.cumsum(ranked[:most])
        rest = held[-1] - held
        least = int(np.searchsorted(_share(held, rest, slack), params.top_p)) + 1
        most = int(np.searchsorted(_share(held, rest, -slack), params.top_p)) + 1
    if params.min_p > 0.0:
        floor = params.min_p * ranked[0]
        least = min(least, max(1, int((ranked >= floor * math.exp(2 * slack)).sum())))
        most = min(most, int((ranked >= floor * math.exp(-2 * slack)).sum()))
    return range(least, most + 1)
