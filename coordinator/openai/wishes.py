"""What chats and completions have in common, as the internal request has it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from coordinator.calls import GenerateCall, SamplingWish, StopWish
from coordinator.openai.errors import BadRequestError
from coordinator.openai.schema import (
    CommonRequest,
    JsonObjectFormat,
    JsonSchemaFormat,
    ResponseFormat,
)
from core.cache.scope import CacheScope
from core.ids import new_request_id
from core.output_format import FormatKind, OutputFormat

# OpenAI's default, which is not the gRPC service's.
_TEMPERATURE = 1.0
_NUM_SEEDS = 2**64


def to_sampling(request: CommonRequest, max_tokens: int | None, logprobs: int | None) -> SamplingWish:
    return SamplingWish(
        max_tokens=max_tokens,
        temperature=_TEMPERATURE if request.temperature is None else request.temperature,
        top_p=request.top_p,
        top_k=None if request.top_k is None else max(0, request.top_k),
        min_p=request.min_p,
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        repetition_penalty=request.repetition_penalty,
        seed=None if request.seed is None else request.seed % _NUM_SEEDS,
        logprobs=logprobs,
        logit_bias=_to_biases(request.logit_bias or {}),
    )


def to_stop(request: CommonRequest, *more: str) -> StopWish:
    """`more` stops as well as what was asked for."""
    given = [request.stop] if isinstance(request.stop, str) else request.stop or []
    return StopWish(
        strings=(*given, *more),
        token_ids=tuple(request.stop_token_ids or ()),
        ignore_eos=bool(request.ignore_eos),
    )


def to_format(wanted: ResponseFormat | None) -> OutputFormat | None:
    match wanted:
        case JsonObjectFormat():
            return OutputFormat(FormatKind.JSON_OBJECT)
        case JsonSchemaFormat():
            return OutputFormat(FormatKind.JSON_SCHEMA, dump(wanted.json_schema.json_schema))
        case _:
            return None


def to_scope(request: CommonRequest) -> CacheScope | None:
    return None if request.cache_scope is None else CacheScope[request.cache_scope.upper()]


def choices_of(call: GenerateCall, num_choices: int) -> list[GenerateCall]:
    """One call per choice; a seed counts up from the first of them."""
    seed = call.sampling.seed
    if seed is None:
        return [call] * num_choices
    seeds = [(seed + i) % _NUM_SEEDS for i in range(num_choices)]
    return [replace(call, sampling=replace(call.sampling, seed=each)) for each in seeds]


def numbered(calls: Sequence[GenerateCall], name: str) -> tuple[GenerateCall, ...]:
    """With request ids made of the whole call's name, which one alone has as it is."""
    if len(calls) == 1:
        return (replace(calls[0], request_id=name),)
    return tuple(replace(call, request_id=f"{name}-{i}") for i, call in enumerate(calls))


def name_of(request: CommonRequest) -> str:
    """What the call's requests are named after."""
    return request.request_id or new_request_id()


def check_stream(request: CommonRequest) -> None:
    if request.stream_options is not None and not request.stream:
        raise BadRequestError(
            "stream_options: only a stream has them", param="stream_options", code="invalid_value"
        )


def dump(value: Any) -> str:
    """JSON as short as can be, characters as they are."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _to_biases(biases: dict[str, float]) -> tuple[tuple[int, float], ...]:
    for key in biases:
        if not (key.isascii() and key.isdecimal() and len(key) <= 10):
            raise BadRequestError(
                f"logit_bias: {key[:20]!r} is no token id", param="logit_bias", code="invalid_value"
            )
    return tuple(sorted({int(key): bias for key, bias in biases.items()}.items()))
