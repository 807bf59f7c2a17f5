"""What is refused for what it says: ranges, sizes, missing parts; and the defaults of what it leaves open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.calls import GenerateCall, SamplingWish, StopWish
from coordinator.checks.counts import MAX_BIASES, check_count
from coordinator.checks.formats import check_format
from coordinator.checks.inputs import check_input
from coordinator.errors import (
    InvalidFieldError,
    NotFoundError,
    TooLargeError,
)
from coordinator.policy.capacity import Capacity
from coordinator.tenants.settings import check_tenant_name
from core.ids import new_seed
from core.sampling import SamplingParams

_MAX_ID_CHARS = 128
_MAX_PRIORITY = 10
_MAX_SALT_CHARS = 256
_MAX_STOP_STRINGS = 16
_MAX_STOP_CHARS = 256
_MAX_STOP_IDS = 256
_MAX_TEMPERATURE = 5.0
_MAX_LOGPROBS = 20
_MAX_BIAS = 100.0


@dataclass(frozen=True, slots=True)
class DoorLimits:
    model_name: str
    vocab_size: int
    media_token_ids: frozenset[int]
    message_bytes: int
    media_per_request: int
    media_bytes: int
    resume_ttl_s: float = 0.0  # 0: no request is resumable


def check_call(call: GenerateCall, limits: DoorLimits) -> None:
    """Raises a FieldError naming the first field that is wrong, before any work is done."""
    if call.size_bytes > limits.message_bytes:
        raise TooLargeError("messages", f"message of {call.size_bytes} bytes, limit {limits.message_bytes}")
    if len(call.request_id) > _MAX_ID_CHARS:
        raise InvalidFieldError("request_id", f"longer than {_MAX_ID_CHARS} characters")
    if call.model not in ("", limits.model_name):
        raise NotFoundError("model", f"{call.model!r} is not served here, {limits.model_name!r} is")
    if abs(call.priority) > _MAX_PRIORITY:
        raise InvalidFieldError(
            "priority", f"{call.priority} is not between -{_MAX_PRIORITY} and {_MAX_PRIORITY}"
        )
    check_tenant_name(call.tenant)
    if len(call.cache_salt) > _MAX_SALT_CHARS:
        raise InvalidFieldError("cache_salt", f"longer than {_MAX_SALT_CHARS} characters")
    if call.deadline_s is not None and not call.deadline_s > 0:
        raise InvalidFieldError("deadline", "must be above 0")
    if not 0 <= call.resumable_s <= limits.resume_ttl_s:
        raise InvalidFieldError(
            "resumable", f"{call.resumable_s:g} s is not between 0 and {limits.resume_ttl_s:g}"
        )
    check_input(call, limits)
    _check_sampling(call.sampling)
    _check_bias(call.sampling.logit_bias, limits)
    _check_stop(call.stop, limits)
    check_format(call)


def fill_sampling(wish: SamplingWish, max_tokens: int) -> SamplingParams:
    """The complete parameters: what was asked for, else the defaults."""

    def given(value: float | None, default: float) -> float:
        return default if value is None else value

    return SamplingParams(
        max_tokens=max_tokens,
        temperature=given(wish.temperature, 0.0),
        top_p=given(wish.top_p, 1.0),
        top_k=wish.top_k or 0,
        min_p=given(wish.min_p, 0.0),
        presence_penalty=given(wish.presence_penalty, 0.0),
        frequency_penalty=given(wish.frequency_penalty, 0.0),
        repetition_penalty=given(wish.repetition_penalty, 1.0),
        seed=new_seed() if wish.seed is None else wish.seed,
        logprobs=wish.logprobs,
        logit_bias=wish.logit_bias,
    )


def fit_max_tokens(
    wanted: int | None,
    num_prompt: int,
    media_tokens: Sequence[int],
    context_tokens: int,
    capacity: Capacity,
    *,
    field: str = "messages",
) -> int:
    """Output tokens that the request may make; raises InvalidFieldError where it could never fit.

    `field`: what the prompt was made of.
    """
    if num_prompt >= context_tokens:
        raise InvalidFieldError(
            field, f"prompt of {num_prompt} tokens, but the model's context holds {context_tokens}"
        )
    if not capacity.fits_prompt(num_prompt, media_tokens):
        raise InvalidFieldError(
            field, f"prompt of {num_prompt} tokens, more than any prefill instance's pools hold"
        )
    bounds = {"the model's context": context_tokens}
    if capacity.total_tokens is not None:
        bounds["a decode instance's KV pool"] = capacity.total_tokens
    name, bound = min(bounds.items(), key=lambda each: each[1])
    if num_prompt >= bound:
        raise InvalidFieldError(field, f"prompt of {num_prompt} tokens, but {name} holds {bound}")
    if wanted is not None and num_prompt + wanted > bound:
        raise InvalidFieldError(
            "sampling.max_tokens",
            f"{wanted} after a prompt of {num_prompt} tokens, but {name} holds {bound} in all",
        )
    return bound - num_prompt if wanted is None else wanted


def _check_sampling(wish: SamplingWish) -> None:
    if wish.max_tokens is not None and wish.max_tokens < 1:
        raise InvalidFieldError("sampling.max_tokens", "must be at least 1")
    _check_range("temperature", wish.temperature, 0.0, _MAX_TEMPERATURE)
    _check_range("top_p", wish.top_p, 0.0, 1.0, is_open=True)
    _check_range("min_p", wish.min_p, 0.0, 1.0)
    _check_range("presence_penalty", wish.presence_penalty, -2.0, 2.0)
    _check_range("frequency_penalty", wish.frequency_penalty, -2.0, 2.0)
    _check_range("repetition_penalty", wish.repetition_penalty, 0.0, 10.0, is_open=True)
    if wish.logprobs is not None and wish.logprobs > _MAX_LOGPROBS:
        raise InvalidFieldError("sampling.logprobs", f"{wish.logprobs} is above {_MAX_LOGPROBS}")


def _check_range(name: str, value: float | None, low: float, high: float, *, is_open: bool = False) -> None:
    """`is_open` leaves `low` itself out; NaN is outside of every range."""
    if value is None:
        return
    if not low <= value <= high or (is_open and value == low):
        raise InvalidFieldError(
            f"sampling.{name}", f"{value:g} is not in {'(' if is_open else '['}{low:g}, {high:g}]"
        )


def _check_bias(biases: Sequence[tuple[int, float]], limits: DoorLimits) -> None:
    check_count("sampling.logit_bias", len(biases), MAX_BIASES)
    for token_id, bias in biases:
        if token_id >= limits.vocab_size:
            raise InvalidFieldError("sampling.logit_bias", f"token {token_id} is outside the vocabulary")
        _check_range(f"logit_bias[{token_id}]", bias, -_MAX_BIAS, _MAX_BIAS)


def _check_stop(stop: StopWish, limits: DoorLimits) -> None:
    if len(stop.strings) > _MAX_STOP_STRINGS:
        raise InvalidFieldError("stop.strings", f"{len(stop.strings)}, limit {_MAX_STOP_STRINGS}")
    for i, text in enumerate(stop.strings):
        if not 1 <= len(text) <= _MAX_STOP_CHARS:
            raise InvalidFieldError(f"stop.strings[{i}]", f"must have 1 to {_MAX_STOP_CHARS} characters")
    if len(stop.token_ids) > _MAX_STOP_IDS:
        raise InvalidFieldError("stop.token_ids", f"{len(stop.token_ids)}, limit {_MAX_STOP_IDS}")
    for i, token_id in enumerate(stop.token_ids):
        if token_id >= limits.vocab_size:
            raise InvalidFieldError(f"stop.token_ids[{i}]", f"{token_id} is outside the vocabulary")
