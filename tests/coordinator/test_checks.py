"""What is within bounds passes, and what is left open gets its default."""

from __future__ import annotations

import pytest

from coordinator.calls import ChatMessage, ChatPart, GenerateCall, SamplingWish, StopWish
from coordinator.checks import DoorLimits, check_call, fill_sampling, fit_max_tokens
from coordinator.errors import InvalidFieldError
from coordinator.policy.capacity import Capacity
from core.sampling import SamplingParams

LIMITS = DoorLimits("m", vocab_size=100, message_bytes=1000, media_per_request=2, media_bytes=100)
HELLO = (ChatMessage("user", (ChatPart(text="hi"),)),)
ROOMY = Capacity(prefills=((10_000, None),), decodes=(10_000,))

EDGES = [
    SamplingWish(max_tokens=1, temperature=0.0, top_p=1.0, top_k=0, min_p=0.0, logprobs=0, seed=0),
    SamplingWish(temperature=5.0, top_p=1e-6, min_p=1.0, logprobs=20, seed=2**64 - 1),
    SamplingWish(presence_penalty=-2.0, frequency_penalty=2.0, repetition_penalty=10.0),
]


@pytest.mark.parametrize("wish", EDGES)
def test_edges_are_within(wish: SamplingWish) -> None:
    check_call(GenerateCall(HELLO, sampling=wish), LIMITS)


def test_other_edges_are_within() -> None:
    stop = StopWish(strings=("x" * 256,) * 16, token_ids=(99,))
    call = GenerateCall(HELLO, "i" * 128, "m", stop=stop, priority=-10, deadline_s=1e-9, size_bytes=1000)
    check_call(call, LIMITS)


def test_empty_text_is_content() -> None:
    check_call(GenerateCall((ChatMessage("user", (ChatPart(text=""),)),)), LIMITS)


def test_defaults() -> None:
    params = fill_sampling(SamplingWish(), 7)
    assert params == SamplingParams(max_tokens=7, seed=params.seed)
    assert fill_sampling(SamplingWish(), 7).seed != params.seed


def test_zero_is_no_default() -> None:
    wish = SamplingWish(top_k=0, presence_penalty=0.0, seed=0, logprobs=0, temperature=0.0)
    params = fill_sampling(wish, 7)
    assert (params.seed, params.logprobs) == (0, 0)
    assert params.is_greedy
    assert not params.has_penalties


def fit(wanted: int | None, num_prompt: int, context: int = 100, capacity: Capacity = ROOMY) -> int:
    return fit_max_tokens(wanted, num_prompt, [], context, capacity)


def test_max_tokens_up_to_the_context() -> None:
    assert fit(None, 60) == 40
    assert fit(40, 60) == 40
    assert fit(None, 99) == 1


def test_max_tokens_up_to_the_pool() -> None:
    small = Capacity(prefills=((64, None),), decodes=(80,))
    assert fit(None, 60, capacity=small) == 20
    assert fit(20, 60, capacity=small) == 20


@pytest.mark.parametrize(
    ("wanted", "num_prompt", "capacity", "field"),
    [
        (None, 100, ROOMY, "messages"),
        (41, 60, ROOMY, "sampling.max_tokens"),
        (None, 65, Capacity(((64, None),), (80,)), "messages"),
        (None, 80, Capacity(((90, None),), (80,)), "messages"),
        (21, 60, Capacity(((64, None),), (80,)), "sampling.max_tokens"),
    ],
)
def test_what_could_never_fit(wanted: int | None, num_prompt: int, capacity: Capacity, field: str) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        fit(wanted, num_prompt, capacity=capacity)
    assert caught.value.field == field
