"""Both ways, and unset apart from zero."""

from __future__ import annotations

import pytest

from coordinator.calls import (
    ChatMessage,
    ChatPart,
    GenerateCall,
    ImageSource,
    RawPrompt,
    SamplingWish,
    StopWish,
    Tool,
    ToolCall,
)
from coordinator.errors import InvalidFieldError
from coordinator.events import AcceptedEvent, FinishedEvent, StageSpan, TokensEvent, Usage
from coordinator.state import ServedDescription
from coordinator.wire import inference as wire
from core.cache.scope import CacheScope
from core.output_format import FormatKind, OutputFormat
from core.sampling import SamplingParams
from core.sequence import FinishReason, TokenLogprobs
from core.stages import Stage
from elasticmm.v1 import inference_pb2 as pb

SAMPLING_FIELDS = [field.name for field in pb.SamplingParams.DESCRIPTOR.fields if field.has_presence]


def test_an_empty_call_has_no_opinions() -> None:
    call = wire.to_call(pb.GenerateRequest())
    assert call == GenerateCall(messages=(), size_bytes=0)
    assert call.sampling == SamplingWish()
    assert call.deadline_s is None
    assert call.cache_scope is None


@pytest.mark.parametrize("name", SAMPLING_FIELDS)
def test_zero_is_an_opinion(name: str) -> None:
    message = pb.SamplingParams()
    assert getattr(wire.to_sampling_wish(message), name) is None
    setattr(message, name, 0)
    wish = wire.to_sampling_wish(message)
    assert getattr(wish, name) == 0
    others = [getattr(wish, other) for other in SAMPLING_FIELDS if other != name]
    assert others == [None] * len(others)


def test_a_whole_call() -> None:
    message = pb.GenerateRequest(
        request_id="r",
        model="m",
        messages=[
            pb.Message(
                role="user",
                parts=[
                    pb.Part(text=""),
                    pb.Part(image=pb.ImagePart(digest=b"d")),
                    pb.Part(image=pb.ImagePart(data=b"")),
                    pb.Part(image=pb.ImagePart(url="u", max_pixels=0)),
                    pb.Part(image=pb.ImagePart()),
                    pb.Part(),
                ],
            )
        ],
        stop=pb.StopConditions(strings=["a"], token_ids=[3], ignore_eos=True),
        tenant="t",
        priority=-4,
        cache_scope=pb.CACHE_SCOPE_CLUSTER,
        cache_salt="s",
    )
    message.deadline.FromMilliseconds(1500)
    call = wire.to_call(message)
    parts = (
        ChatPart(text=""),
        ChatPart(image=ImageSource(digest=b"d")),
        ChatPart(image=ImageSource(data=b"")),
        ChatPart(image=ImageSource(url="u", max_pixels=0)),
        ChatPart(image=ImageSource()),
        ChatPart(),
    )
    assert call == GenerateCall(
        messages=(ChatMessage("user", parts),),
        request_id="r",
        model="m",
        stop=StopWish(("a",), (3,), ignore_eos=True),
        tenant="t",
        priority=-4,
        deadline_s=1.5,
        cache_scope=CacheScope.CLUSTER,
        cache_salt="s",
        size_bytes=message.ByteSize(),
    )


def test_tools_and_calls() -> None:
    message = pb.GenerateRequest(
        messages=[
            pb.Message(role="assistant", tool_calls=[pb.ToolCall(id="c", name="f", arguments="{}")]),
            pb.Message(role="tool", parts=[pb.Part(text="1")], tool_call_id="c"),
        ],
        tools=[pb.Tool(name="f", description="d", parameters="{}")],
    )
    call = wire.to_call(message)
    assert call.messages == (
        ChatMessage("assistant", (), (ToolCall("c", "f", "{}"),)),
        ChatMessage("tool", (ChatPart(text="1"),), tool_call_id="c"),
    )
    assert call.tools == (Tool("f", "d", "{}"),)


@pytest.mark.parametrize(
    ("message", "prompt"),
    [
        (None, None),
        (pb.Prompt(), RawPrompt()),
        (pb.Prompt(text=""), RawPrompt(text="")),
        (pb.Prompt(token_ids=pb.TokenIds()), RawPrompt(token_ids=())),
        (pb.Prompt(token_ids=pb.TokenIds(ids=[0, 7])), RawPrompt(token_ids=(0, 7))),
    ],
)
def test_raw_prompts(message: pb.Prompt | None, prompt: RawPrompt | None) -> None:
    assert wire.to_call(pb.GenerateRequest(prompt=message)).prompt == prompt


@pytest.mark.parametrize("kind", FormatKind)
def test_formats_both_ways(kind: FormatKind) -> None:
    form = OutputFormat(kind, "" if kind is FormatKind.JSON_OBJECT else "x")
    assert wire.to_call(pb.GenerateRequest(format=wire.from_format(form))).format == form
    assert wire.to_call(pb.GenerateRequest()).format is None


@pytest.mark.parametrize(
    ("message", "field"),
    [(pb.OutputFormat(), "format"), (pb.OutputFormat(json_object=False), "format.json_object")],
)
def test_a_format_that_says_nothing(message: pb.OutputFormat, field: str) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        wire.to_call(pb.GenerateRequest(format=message))
    assert caught.value.field == field


def test_biases_both_ways() -> None:
    params = SamplingParams(1, logit_bias=((3, -0.5), (7, 0.0), (9, 100.0)))
    assert wire.to_sampling_wish(wire.from_sampling(params)).logit_bias == params.logit_bias


@pytest.mark.parametrize("logprobs", [None, 0, 5])
def test_complete_sampling_leaves_nothing_unset(logprobs: int | None) -> None:
    params = SamplingParams(7, 0.0, 1.0, 0, 0.0, 0.0, 0.0, 1.0, seed=2**64 - 1, logprobs=logprobs)
    message = wire.from_sampling(params)
    unset = [name for name in SAMPLING_FIELDS if not message.HasField(name)]
    assert unset == ([] if logprobs is not None else ["logprobs"])
    wish = wire.to_sampling_wish(message)
    assert {name: getattr(wish, name) for name in SAMPLING_FIELDS} == {
        name: getattr(params, name) for name in SAMPLING_FIELDS
    }


@pytest.mark.parametrize("scope", CacheScope)
def test_scopes_both_ways_and_unspecified_is_no_opinion(scope: CacheScope) -> None:
    assert wire.to_scope(wire.from_scope(scope)) is scope
    call = wire.to_call(pb.GenerateRequest(cache_scope=wire.from_scope(scope), cache_salt="salt"))
    assert (call.cache_scope, call.cache_salt) == (scope, "salt")
    silent = wire.to_call(pb.GenerateRequest())
    assert (silent.cache_scope, silent.cache_salt) == (None, "")


def test_events() -> None:
    accepted = wire.from_event(AcceptedEvent("r", "m", 0, 12)).accepted
    assert (accepted.request_id, accepted.model, accepted.seed, accepted.prompt_tokens) == ("r", "m", 0, 12)
    logprobs = TokenLogprobs(-0.5, ((3, -0.5), (4, -1.5)))
    tokens = wire.from_event(TokensEvent(0, (3,), "x", (logprobs,))).tokens
    assert (tokens.first_index, list(tokens.token_ids), tokens.text) == (0, [3], "x")
    assert [wire.to_logprobs(each) for each in tokens.logprobs] == [logprobs]


def test_the_last_event() -> None:
    span = StageSpan(Stage.ENCODE, "e0", 0.0, 2.5, "shm")
    message = wire.from_event(FinishedEvent(FinishReason.STOP, "end", Usage(9, 3, 4, 2, 1), (span,))).finished
    assert message.reason == pb.FINISH_REASON_STOP
    assert message.stop_string == "end"
    assert (message.usage.prompt_tokens, message.usage.completion_tokens) == (9, 3)
    assert (message.usage.media_tokens, message.usage.cached_tokens) == (4, 2)
    assert message.usage.cached_media == 1
    (sent,) = message.stages
    assert (sent.stage, sent.instance_id, sent.start_ms, sent.end_ms) == (pb.STAGE_ENCODE, "e0", 0.0, 2.5)


@pytest.mark.parametrize("stage", Stage)
def test_stages_both_ways(stage: Stage) -> None:
    assert wire.to_stage(wire.from_stage(stage)) is stage
    assert wire.to_stage(pb.STAGE_UNSPECIFIED) is None


@pytest.mark.parametrize("scope", CacheScope)
def test_scopes_both_ways(scope: CacheScope) -> None:
    assert wire.to_scope(wire.from_scope(scope)) is scope


def test_a_scope_that_is_not_known_is_not_taken_for_another() -> None:
    with pytest.raises(InvalidFieldError) as caught:
        wire.to_call(pb.GenerateRequest(cache_scope=4))  # type: ignore[arg-type]
    assert caught.value.field == "cache_scope"


@pytest.mark.parametrize("reason", [None, *FinishReason])
def test_finish_reasons_both_ways(reason: FinishReason | None) -> None:
    assert wire.to_finish(wire.from_finish(reason)) is reason


def test_description() -> None:
    message = wire.from_description(ServedDescription("m", "h:1", 10, 20, 30, 40, 5, 0.25))
    assert (message.model, message.media_endpoint) == ("m", "h:1")
    limits = message.limits
    assert (limits.context_tokens, limits.message_bytes, limits.media_bytes) == (10, 20, 30)
    assert (limits.media_pixels, limits.media_per_request) == (40, 5)
    assert limits.media_ttl.ToMilliseconds() == 250


def test_resumable_and_its_limits() -> None:
    message = pb.GenerateRequest()
    message.resumable.FromMilliseconds(1500)
    assert wire.to_call(message).resumable_s == 1.5
    description = ServedDescription("m", "", 1, 2, 3, 4, 5, 6.0, resume_ttl_s=0.5, resume_tokens=7)
    limits = wire.from_description(description).limits
    assert (limits.resume_ttl.ToMilliseconds(), limits.resume_tokens) == (500, 7)
