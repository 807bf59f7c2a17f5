"""What clients are told, and the request that arrives: together these rows set every field that there is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from elasticmm.v1 import inference_pb2 as pb

_PICTURE = b"a picture"
_URL = "https://example.com/a.png"


@dataclass(frozen=True)
class Row:
    """As the Python client takes it; other clients' words follow from that."""

    request: pb.GenerateRequest  # as it arrives
    messages: list[dict[str, Any]] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    has_gateway: bool = True  # pictures are uploaded


def _asked(*parts: pb.Part) -> pb.GenerateRequest:
    return pb.GenerateRequest(messages=[pb.Message(role="user", parts=parts)])


def _told(*parts: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


ROWS = {
    "all but messages": Row(
        pb.GenerateRequest(
            request_id="mine",
            model="echo",
            sampling=pb.SamplingParams(
                max_tokens=5,
                temperature=0.5,
                top_p=0.25,
                top_k=7,
                min_p=0.125,
                presence_penalty=1.5,
                frequency_penalty=-1.5,
                repetition_penalty=1.25,
                seed=2**64 - 1,
                logprobs=3,
                logit_bias={11: 2.5, 2**32 - 1: -2.5},
            ),
            stop=pb.StopConditions(strings=["x", "y"], token_ids=[1, 2], ignore_eos=True),
            tenant="t",
            priority=-3,
            deadline=Duration(seconds=9, nanos=500_000_000),
            cache_scope=pb.CACHE_SCOPE_CLUSTER,
            cache_salt="s",
            prompt=pb.Prompt(text="as it is"),
            format=pb.OutputFormat(json_object=True),
            tools=[pb.Tool(name="look", description="looks", parameters="{}")],
            resumable=Duration(seconds=60),
        ),
        options={
            "request_id": "mine",
            "model": "echo",
            "max_tokens": 5,
            "temperature": 0.5,
            "top_p": 0.25,
            "top_k": 7,
            "min_p": 0.125,
            "presence_penalty": 1.5,
            "frequency_penalty": -1.5,
            "repetition_penalty": 1.25,
            "seed": 2**64 - 1,
            "logprobs": 3,
            "logit_bias": {11: 2.5, 2**32 - 1: -2.5},
            "stop": ["x", "y"],
            "stop_token_ids": [1, 2],
            "ignore_eos": True,
            "tenant": "t",
            "priority": -3,
            "deadline_s": 9.5,
            "cache_scope": "cluster",
            "cache_salt": "s",
            "prompt": "as it is",
            "format": "json_object",
            "tools": [{"name": "look", "description": "looks", "parameters": "{}"}],
            "resumable_s": 60,
        },
    ),
    "a conversation": Row(
        pb.GenerateRequest(
            messages=[
                pb.Message(role="user", parts=[pb.Part(text="weather?")]),
                pb.Message(
                    role="assistant", tool_calls=[pb.ToolCall(id="c", name="look", arguments='{"at":"sea"}')]
                ),
                pb.Message(role="tool", parts=[pb.Part(text="rain")], tool_call_id="c"),
            ],
            format=pb.OutputFormat(json_schema='{"type":"object"}'),
        ),
        [
            {"role": "user", "content": "weather?"},
            {"role": "assistant", "tool_calls": [{"id": "c", "name": "look", "arguments": '{"at":"sea"}'}]},
            {"role": "tool", "content": "rain", "tool_call_id": "c"},
        ],
        {"format": {"json_schema": '{"type":"object"}'}},
    ),
    "an uploaded picture": Row(
        _asked(pb.Part(image=pb.ImagePart(digest=sha256(_PICTURE).digest(), max_pixels=4096))),
        _told({"type": "image", "image": _PICTURE, "max_pixels": 4096}),
    ),
    "an inline picture": Row(
        _asked(pb.Part(image=pb.ImagePart(data=_PICTURE, max_pixels=4096))),
        _told({"type": "image", "image": _PICTURE, "max_pixels": 4096}),
        has_gateway=False,
    ),
    "pictures by URL": Row(
        _asked(
            pb.Part(image=pb.ImagePart(url=_URL, max_pixels=4096)),
            pb.Part(image=pb.ImagePart(url=_URL, max_pixels=512 * 512)),
            pb.Part(image=pb.ImagePart(url=_URL)),
        ),
        _told(
            {"type": "image", "url": _URL, "max_pixels": 4096},
            {"type": "image_url", "image_url": {"url": _URL, "detail": "low"}},
            {"type": "image", "url": _URL, "detail": "high"},
        ),
    ),
    "token ids": Row(
        pb.GenerateRequest(
            prompt=pb.Prompt(token_ids=pb.TokenIds(ids=[1, 2, 3])), format=pb.OutputFormat(regex="a+")
        ),
        options={"prompt": [1, 2, 3], "format": {"regex": "a+"}},
    ),
    "a grammar": Row(
        pb.GenerateRequest(
            prompt=pb.Prompt(text="x"), format=pb.OutputFormat(grammar="start: A"), stop={"strings": ["y"]}
        ),
        options={"prompt": "x", "format": {"grammar": "start: A"}, "stop": "y"},
    ),
}


def all_paths(descriptor: Descriptor, place: str = "") -> Iterator[str]:
    """Of every field that holds a value, like "sampling.seed"."""
    for each in descriptor.fields:
        if _is_plain(each):
            yield place + each.name
        else:
            yield from all_paths(each.message_type, f"{place}{each.name}.")


def leaves_in(message: Message, place: str = "") -> Iterator[tuple[str, Any]]:
    """Path and value of those that the message sets; a part without any is as good as none."""
    for each, value in message.ListFields():
        if not _is_plain(each):
            for inner in value if each.is_repeated else [value]:
                yield from leaves_in(inner, f"{place}{each.name}.")
        elif isinstance(value, Mapping):
            yield place + each.name, dict(value)
        else:
            yield place + each.name, list(value) if each.is_repeated else value


def _is_plain(each: FieldDescriptor) -> bool:
    """Has no fields of its own that clients set."""
    inner = each.message_type
    return inner is None or inner.GetOptions().map_entry or inner.file.package == "google.protobuf"
