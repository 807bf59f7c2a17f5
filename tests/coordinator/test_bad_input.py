"""Each bad input gets its status and field; a good request works right after, and nothing is held."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from coordinator.config import CoordinatorConfig, MediaLimits
from coordinator.model import load_model
from elasticmm.v1 import inference_pb2 as pb
from tests.coordinator.conftest import CHECKPOINT, Bench, MakeBench, ask_for, picture
from tests.coordinator.media.conftest import WebServer, web

__all__ = ["web"]

CODES = grpc.StatusCode
IMAGE = "messages[0].parts[0].image"


def user(*parts: pb.Part, role: str = "user") -> pb.GenerateRequest:
    return pb.GenerateRequest(messages=[pb.Message(role=role, parts=parts)])


def image(**source: object) -> pb.GenerateRequest:
    return user(pb.Part(image=pb.ImagePart(**source)))


def with_priority(priority: int) -> pb.GenerateRequest:
    request = ask_for()
    request.priority = priority
    return request


HELLO = pb.Part(text="hello")


def formatted(**kind: object) -> pb.GenerateRequest:
    request = ask_for()
    request.format.CopyFrom(pb.OutputFormat(**kind))
    return request


CASES: dict[str, tuple[pb.GenerateRequest, grpc.StatusCode, str]] = {
    "unknown model": (ask_for(model="other"), CODES.NOT_FOUND, "model"),
    "no messages": (pb.GenerateRequest(), CODES.INVALID_ARGUMENT, "messages"),
    "no parts": (user(), CODES.INVALID_ARGUMENT, "messages[0].parts"),
    "no content": (user(HELLO, pb.Part()), CODES.INVALID_ARGUMENT, "messages[0].parts[1]"),
    "no source": (image(), CODES.INVALID_ARGUMENT, IMAGE),
    "no pixels": (image(data=b"x", max_pixels=0), CODES.INVALID_ARGUMENT, f"{IMAGE}.max_pixels"),
    "unknown role": (user(HELLO, role="boss"), CODES.INVALID_ARGUMENT, "messages[0].role"),
    "no role": (user(HELLO, role=""), CODES.INVALID_ARGUMENT, "messages[0].role"),
    "long id": (ask_for(request_id="x" * 129), CODES.INVALID_ARGUMENT, "request_id"),
    "priority": (with_priority(11), CODES.INVALID_ARGUMENT, "priority"),
    "deadline": (ask_for(deadline_s=0), CODES.INVALID_ARGUMENT, "deadline"),
    "max_tokens 0": (ask_for(max_tokens=0), CODES.INVALID_ARGUMENT, "sampling.max_tokens"),
    "max_tokens over context": (ask_for(max_tokens=4096), CODES.INVALID_ARGUMENT, "sampling.max_tokens"),
    "temperature below": (ask_for(temperature=-0.1), CODES.INVALID_ARGUMENT, "sampling.temperature"),
    "temperature above": (ask_for(temperature=5.1), CODES.INVALID_ARGUMENT, "sampling.temperature"),
    "temperature nan": (ask_for(temperature=math.nan), CODES.INVALID_ARGUMENT, "sampling.temperature"),
    "top_p 0": (ask_for(top_p=0), CODES.INVALID_ARGUMENT, "sampling.top_p"),
    "top_p above": (ask_for(top_p=1.01), CODES.INVALID_ARGUMENT, "sampling.top_p"),
    "min_p": (ask_for(min_p=-1), CODES.INVALID_ARGUMENT, "sampling.min_p"),
    "presence": (ask_for(presence_penalty=2.5), CODES.INVALID_ARGUMENT, "sampling.presence_penalty"),
    "frequency": (ask_for(frequency_penalty=-2.5), CODES.INVALID_ARGUMENT, "sampling.frequency_penalty"),
    "repetition": (ask_for(repetition_penalty=0), CODES.INVALID_ARGUMENT, "sampling.repetition_penalty"),
    "logprobs": (ask_for(logprobs=21), CODES.INVALID_ARGUMENT, "sampling.logprobs"),
    "empty stop": (
        ask_for(stop=pb.StopConditions(strings=["a", ""])),
        CODES.INVALID_ARGUMENT,
        "stop.strings[1]",
    ),
    "many stops": (
        ask_for(stop=pb.StopConditions(strings=["a"] * 17)),
        CODES.INVALID_ARGUMENT,
        "stop.strings",
    ),
    "stop id": (
        ask_for(stop=pb.StopConditions(token_ids=[10**6])),
        CODES.INVALID_ARGUMENT,
        "stop.token_ids[0]",
    ),
    "long prompt": (ask_for(text="word " * 9000), CODES.INVALID_ARGUMENT, "messages"),
    "short digest": (image(digest=b"x"), CODES.INVALID_ARGUMENT, f"{IMAGE}.digest"),
    "unknown digest": (image(digest=b"x" * 32), CODES.NOT_FOUND, f"{IMAGE}.digest"),
    "empty data": (image(data=b""), CODES.INVALID_ARGUMENT, f"{IMAGE}.data"),
    "wrong type": (image(data=b"%PDF-1.4"), CODES.INVALID_ARGUMENT, f"{IMAGE}.data"),
    "truncated": (image(data=picture()[:150]), CODES.INVALID_ARGUMENT, f"{IMAGE}.data"),
    "oversize bytes": (image(data=bytes(200_001)), CODES.INVALID_ARGUMENT, f"{IMAGE}.data"),
    "oversize pixels": (image(data=picture("PNG", (600, 600))), CODES.INVALID_ARGUMENT, f"{IMAGE}.data"),
    "thin picture": (image(data=picture("PNG", (1000, 2))), CODES.INVALID_ARGUMENT, IMAGE),
    "too many": (
        user(*[pb.Part(image=pb.ImagePart(data=picture()))] * 4),
        CODES.INVALID_ARGUMENT,
        "messages",
    ),
    "empty url": (image(url=""), CODES.INVALID_ARGUMENT, f"{IMAGE}.url"),
    "scheme": (image(url="file:///etc/passwd"), CODES.INVALID_ARGUMENT, f"{IMAGE}.url"),
    "unresolved": (image(url="http://no-such-host.invalid/"), CODES.INVALID_ARGUMENT, f"{IMAGE}.url"),
    "loopback": (image(url="http://localhost/"), CODES.INVALID_ARGUMENT, f"{IMAGE}.url"),
    "private": (image(url="http://10.0.0.1/"), CODES.INVALID_ARGUMENT, f"{IMAGE}.url"),
    "metadata service": (image(url="http://169.254.169.254/"), CODES.INVALID_ARGUMENT, f"{IMAGE}.url"),
    "second part": (
        user(HELLO, pb.Part(image=pb.ImagePart(data=b"no"))),
        CODES.INVALID_ARGUMENT,
        "messages[0].parts[1].image.data",
    ),
    "bias": (ask_for(logit_bias={5: 101}), CODES.INVALID_ARGUMENT, "sampling.logit_bias[5]"),
    "media in a raw prompt": (
        pb.GenerateRequest(prompt=pb.Prompt(text="see <|image_pad|>")),
        CODES.INVALID_ARGUMENT,
        "prompt.text",
    ),
    "long raw prompt": (
        pb.GenerateRequest(prompt=pb.Prompt(text="word " * 9000)),
        CODES.INVALID_ARGUMENT,
        "prompt",
    ),
    "no place for tools": (
        pb.GenerateRequest(messages=ask_for().messages, tools=[pb.Tool(name="f")]),
        CODES.INVALID_ARGUMENT,
        "tools",
    ),
    "no format": (formatted(), CODES.INVALID_ARGUMENT, "format"),
    "unknown type": (
        formatted(json_schema='{"type": "foo"}'),
        CODES.INVALID_ARGUMENT,
        "format.json_schema",
    ),
    "remote schema": (
        formatted(json_schema='{"$ref": "http://localhost/schema"}'),
        CODES.INVALID_ARGUMENT,
        "format.json_schema",
    ),
    "look-around": (formatted(regex="(?=a)b"), CODES.INVALID_ARGUMENT, "format.regex"),
    "no start": (formatted(grammar='other: "a"'), CODES.INVALID_ARGUMENT, "format.grammar"),
    "many parts": (user(*[pb.Part(text="")] * 10_000), CODES.INVALID_ARGUMENT, "messages"),
    "many messages": (
        pb.GenerateRequest(messages=[pb.Message(role="user", parts=[HELLO])] * 5_000),
        CODES.INVALID_ARGUMENT,
        "messages",
    ),
    "many tokens": (
        pb.GenerateRequest(prompt=pb.Prompt(token_ids=pb.TokenIds(ids=[5] * 5_000))),
        CODES.INVALID_ARGUMENT,
        "prompt",
    ),
    "many biases": (
        ask_for(logit_bias=dict.fromkeys(range(301), 1)),
        CODES.INVALID_ARGUMENT,
        "sampling.logit_bias",
    ),
    "endless stops": (
        ask_for(stop=pb.StopConditions(strings=["x"] * 90_000)),
        CODES.INVALID_ARGUMENT,
        "stop.strings",
    ),
    "deep schema": (formatted(json_schema="[" * 9_000), CODES.INVALID_ARGUMENT, "format.json_schema"),
    "endless pattern": (formatted(regex="(a{999}){999}"), CODES.INVALID_ARGUMENT, "format.regex"),
    "message size": (ask_for(text="x" * 400_000), CODES.RESOURCE_EXHAUSTED, "messages"),
}
LIMITS = {"media_bytes": 200_000, "media_pixels": 300_000, "url_timeout_s": 0.5}


@pytest.fixture
async def strict(make_bench: MakeBench) -> Bench:
    return await make_bench(
        "epd", gateway=True, media=MediaLimits(**LIMITS), media_per_request=3, message_bytes=300_000
    )


@pytest.mark.parametrize("name", CASES)
async def test_refused_with_the_field(strict: Bench, name: str) -> None:
    request, code, field = CASES[name]
    failure = await strict.fail(request)
    assert (failure.code, failure.field) == (code, field)
    assert failure.message.startswith(field)
    assert not strict.stages[0].commands
    await strict.assert_idle()


@pytest.mark.parametrize("path", ["/text", "/missing", "/endless", "/declared", "/hang"])
async def test_urls_that_give_no_picture(make_bench: MakeBench, web: WebServer, path: str) -> None:
    bench = await make_bench("epd", gateway=True, media=MediaLimits(**LIMITS, allow_private_urls=True))
    failure = await bench.fail(image(url=web.url(path)))
    assert (failure.code, failure.field) == (CODES.INVALID_ARGUMENT, f"{IMAGE}.url")
    await bench.assert_idle()
    good = image(url=web.url("/picture"))
    good.sampling.max_tokens = 2
    answer = await bench.ask(good)
    assert answer.finished.usage.media_tokens


async def test_far_too_large_a_message(strict: Bench) -> None:
    failure = await strict.fail(text="x" * 6_000_000)
    assert failure.code is CODES.RESOURCE_EXHAUSTED
    await strict.assert_idle()


async def test_a_request_id_that_is_running(strict: Bench) -> None:
    strict.stages[0].pause_at = 2
    call = strict.inference.Generate(ask_for(request_id="mine", max_tokens=9))
    await strict.until(lambda: strict.num_requests == 1)
    failure = await strict.fail(request_id="mine")
    assert (failure.code, failure.field) == (CODES.ALREADY_EXISTS, "request_id")
    call.cancel()
    strict.stages[0].pause_at = None
    await strict.until(lambda: not strict.coordinator.door.num_open and not strict.num_requests)
    assert (await strict.ask(request_id="mine", max_tokens=2)).finished
    await strict.assert_idle()


async def test_more_than_the_pool_could_ever_hold(make_bench: MakeBench) -> None:
    bench = await make_bench()
    await bench.add("epd", blocks=8)
    failure = await bench.fail(max_tokens=200)
    assert (failure.code, failure.field) == (CODES.INVALID_ARGUMENT, "sampling.max_tokens")
    assert "128" in failure.message
    failure = await bench.fail(text="word " * 200, max_tokens=1)
    assert (failure.code, failure.field) == (CODES.INVALID_ARGUMENT, "messages")
    answer = await bench.ask(text="as long as it fits")
    assert answer.finished.usage.prompt_tokens + len(answer.token_ids) == 128
    await bench.assert_idle()


def _without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _with_architecture(folder: Path) -> None:
    config = folder / "config.json"
    config.write_text(config.read_text().replace("ForConditionalGeneration", "ForNothing"))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_without("config.json"), "config.json"),
        (_without("tokenizer.json"), "tokenizer.json"),
        (_without("model.safetensors"), "model.safetensors"),
        (_without("preprocessor_config.json"), "preprocessor_config.json"),
        (_with_architecture, "unknown architecture"),
    ],
)
def test_a_model_folder_that_cannot_be_served(
    tmp_path: Path, change: Callable[[Path], None], named: str
) -> None:
    for path in CHECKPOINT.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    change(tmp_path)
    with pytest.raises(ValueError, match=named):
        load_model(tmp_path, "name")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("cluster_token", ""),
        ("port", 70000),
        ("topology", "e1"),
        ("max_waiting", 0),
        ("max_connections", 0),
        ("max_calls", 0),
        ("allow_hosts", ("a:1",)),
        ("heartbeat_timeout_s", 0.5),
    ],
)
def test_settings_that_make_no_sense(setting: str, value: object) -> None:
    fields = {"model_path": CHECKPOINT, "cluster_token": "t", setting: value}
    with pytest.raises(ValueError, match=setting):
        CoordinatorConfig(**fields)
