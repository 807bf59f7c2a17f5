"""What is within bounds passes, and what is left open gets its default."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from coordinator.calls import (
    ChatMessage,
    ChatPart,
    GenerateCall,
    RawPrompt,
    SamplingWish,
    StopWish,
    Tool,
    ToolCall,
)
from coordinator.checks.call import DoorLimits, check_call, fill_sampling, fit_max_tokens
from coordinator.errors import InvalidFieldError
from coordinator.policy.capacity import Capacity
from core.output_format import FormatKind, OutputFormat
from core.sampling import SamplingParams

LIMITS = DoorLimits(
    "m",
    vocab_size=100,
    media_token_ids=frozenset({90, 91}),
    message_bytes=1000,
    media_per_request=2,
    media_bytes=100,
)
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


def refused(call: GenerateCall) -> str:
    with pytest.raises(InvalidFieldError) as caught:
        check_call(call, LIMITS)
    return caught.value.field


@pytest.mark.parametrize(
    ("biases", "field"),
    [
        (((5, 100.5),), "sampling.logit_bias[5]"),
        (((5, math.nan),), "sampling.logit_bias[5]"),
        (((100, 1.0),), "sampling.logit_bias"),
        (tuple((token, 1.0) for token in range(301)), "sampling.logit_bias"),
    ],
)
def test_biases_out_of_bounds(biases: tuple[tuple[int, float], ...], field: str) -> None:
    assert refused(GenerateCall(HELLO, sampling=SamplingWish(logit_bias=biases))) == field


def test_biases_at_the_bounds() -> None:
    check_call(GenerateCall(HELLO, sampling=SamplingWish(logit_bias=((0, -100.0), (99, 100.0)))), LIMITS)


@pytest.mark.parametrize(
    ("prompt", "field"),
    [
        (RawPrompt(), "prompt"),
        (RawPrompt(text=""), "prompt.text"),
        (RawPrompt(token_ids=()), "prompt.token_ids"),
        (RawPrompt(token_ids=(1, 100)), "prompt.token_ids.ids[1]"),
        (RawPrompt(token_ids=(1, 90)), "prompt.token_ids"),
    ],
)
def test_raw_prompts(prompt: RawPrompt, field: str) -> None:
    assert refused(GenerateCall(prompt=prompt)) == field


def test_a_raw_prompt_alone() -> None:
    prompt = RawPrompt(token_ids=(1, 99))
    check_call(GenerateCall(prompt=prompt), LIMITS)
    assert refused(GenerateCall(HELLO, prompt=prompt)) == "prompt"
    assert refused(GenerateCall(prompt=prompt, tools=(Tool("f"),))) == "tools"


DEEP = '{"a":' * 65 + "1" + "}" * 65


@pytest.mark.parametrize(
    ("tools", "field"),
    [
        ((Tool("no spaces"),), "tools[0].name"),
        ((Tool("f"), Tool("f")), "tools[1].name"),
        ((Tool("f", parameters="[]"),), "tools[0].parameters"),
        ((Tool("f", parameters="{"),), "tools[0].parameters"),
        ((Tool("f", parameters='{"a": "\\ud800"}'),), "tools[0].parameters"),
        ((Tool("f", parameters=DEEP),), "tools[0].parameters"),
        ((Tool("f", parameters='"' + '\\"' * 30_000),), "tools[0].parameters"),
        ((Tool("f", parameters=" " * 70_000),), "tools[0].parameters"),
        ((Tool("f", description="x" * 270_000),), "tools"),
        (tuple(Tool(f"f{i}") for i in range(129)), "tools"),
    ],
)
def test_tools_out_of_bounds(tools: tuple[Tool, ...], field: str) -> None:
    assert refused(GenerateCall(HELLO, tools=tools)) == field


def test_brackets_in_strings_are_not_nesting() -> None:
    check_call(GenerateCall(HELLO, tools=(Tool("f", parameters='{"a\\"": "' + "[" * 100 + '"}'),)), LIMITS)


def test_tool_calls_are_an_assistants() -> None:
    call = ToolCall("c", "f", "{}")
    check_call(GenerateCall((*HELLO, ChatMessage("assistant", (), (call,)))), LIMITS)
    assert refused(GenerateCall((ChatMessage("user", (), (call,)),))) == "messages[0].tool_calls"
    assert refused(GenerateCall((replace(HELLO[0], tool_call_id="c"),))) == "messages[0].tool_call_id"
    broken = ChatMessage("assistant", (), (ToolCall("c", "f", "1"),))
    assert refused(GenerateCall((broken,))) == "messages[0].tool_calls[0].arguments"


@pytest.mark.parametrize(
    ("form", "field"),
    [
        (OutputFormat(FormatKind.REGEX), "format.regex"),
        (OutputFormat(FormatKind.GRAMMAR, "x" * 70_000), "format.grammar"),
        (OutputFormat(FormatKind.JSON_SCHEMA, "true"), "format.json_schema"),
        (OutputFormat(FormatKind.JSON_SCHEMA, "{"), "format.json_schema"),
        (OutputFormat(FormatKind.JSON_SCHEMA, DEEP), "format.json_schema"),
    ],
)
def test_formats_out_of_bounds(form: OutputFormat, field: str) -> None:
    assert refused(GenerateCall(HELLO, format=form)) == field


def test_a_format_needs_the_end_token() -> None:
    form = OutputFormat(FormatKind.JSON_OBJECT)
    check_call(GenerateCall(HELLO, format=form), LIMITS)
    assert refused(GenerateCall(HELLO, format=form, stop=StopWish(ignore_eos=True))) == "stop.ignore_eos"
