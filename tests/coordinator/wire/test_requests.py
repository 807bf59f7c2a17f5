"""What is sent is what arrives."""

from __future__ import annotations

from dataclasses import fields, replace

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
from coordinator.wire.inference import to_call
from coordinator.wire.requests import from_call
from core.cache.scope import CacheScope
from core.output_format import FormatKind, OutputFormat
from elasticmm.v1 import inference_pb2 as pb

WISHES = [field.name for field in fields(SamplingWish) if field.name != "logit_bias"]
PARTS = (
    ChatPart(text=""),
    ChatPart(image=ImageSource(digest=b"d")),
    ChatPart(image=ImageSource(data=b"\0")),
    ChatPart(image=ImageSource(url="https://x")),
    ChatPart(image=ImageSource(url="https://x", max_pixels=2**32 - 1)),
    ChatPart(image=ImageSource(data=b"\0", max_pixels=1)),
    ChatPart(image=ImageSource()),
    ChatPart(),
)
CALL = GenerateCall(
    messages=(
        ChatMessage("user", PARTS),
        ChatMessage("assistant", (), (ToolCall("c", "f", "{}"),)),
        ChatMessage("tool", (ChatPart(text="1"),), tool_call_id="c"),
    ),
    request_id="r",
    model="m",
    sampling=SamplingWish(seed=2**64 - 1, temperature=0.5, logit_bias=((3, -0.5), (2**32 - 1, 0.0))),
    stop=StopWish(("a", ""), (3, 2**32 - 1), ignore_eos=True),
    tenant="t",
    priority=-4,
    deadline_s=1.5,
    cache_scope=CacheScope.NONE,
    cache_salt="s",
    format=OutputFormat(FormatKind.REGEX, "a*"),
    tools=(Tool("f", "d", '{"type": "object"}'), Tool("g")),
    resumable_s=0.25,
)


def there(call: GenerateCall) -> GenerateCall:
    """As the coordinator reads it, but for its size."""
    message = pb.GenerateRequest.FromString(from_call(call).SerializeToString())
    read = to_call(message)
    assert read.size_bytes == message.ByteSize()
    return replace(read, size_bytes=0)


@pytest.mark.parametrize("call", [GenerateCall(), CALL])
def test_calls(call: GenerateCall) -> None:
    assert there(call) == call


@pytest.mark.parametrize("prompt", [RawPrompt(), RawPrompt(text=""), RawPrompt(token_ids=(0, 7))])
def test_prompts(prompt: RawPrompt) -> None:
    assert there(GenerateCall(prompt=prompt)).prompt == prompt


@pytest.mark.parametrize("name", WISHES)
def test_zero_is_an_opinion(name: str) -> None:
    wish = SamplingWish(**{name: 0})
    assert there(GenerateCall(sampling=wish)).sampling == wish


@pytest.mark.parametrize("kind", FormatKind)
def test_formats(kind: FormatKind) -> None:
    form = OutputFormat(kind, "" if kind is FormatKind.JSON_OBJECT else "x")
    assert there(GenerateCall(format=form)).format == form


@pytest.mark.parametrize(("asked", "said"), [(-8, 0), (2**40, 2**32 - 1)])
def test_numbers_that_no_field_holds(asked: int, said: int) -> None:
    wish = SamplingWish(max_tokens=asked, logit_bias=((2**33, 1.0),))
    found = there(GenerateCall(sampling=wish)).sampling
    assert (found.max_tokens, found.logit_bias) == (said, ((2**32 - 1, 1.0),))


@pytest.mark.parametrize("deadline_s", [-1.0, 0.0, 1e300])
def test_deadlines_that_are_none(deadline_s: float) -> None:
    """Unset is apart from 0, and what is longer than a Duration is as long as one can be."""
    assert there(GenerateCall(deadline_s=deadline_s)).deadline_s == min(deadline_s, 315_576_000_000)
