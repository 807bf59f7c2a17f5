"""Requests of elasticmm.v1.Inference, odd ones and broken ones."""

from __future__ import annotations

import json

from google.protobuf.message import Message
from hypothesis import strategies as st

from elasticmm.v1 import inference_pb2 as pb
from tests.coordinator.conftest import ask_for, picture
from tests.coordinator.fuzz.messages import Told, any_message

PICTURE = picture(size=(56, 56))
SCHEMAS = (
    '{"type": "object"}',
    '{"type": "foo"}',
    '{"$ref": "#"}',
    '{"$ref": "http://localhost/x"}',
    '{"enum": []}',
    '{"type": "string", "pattern": "(a|b)*c{1,99}"}',
    '{"type": "string", "minLength": 99999999}',
    '{"type": "array", "minItems": 3, "maxItems": 2}',
    "[]",
    "1e999",
    "nul",
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "properties", "items", "anyOf", "required"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)
JSON_TEXTS = st.sampled_from(SCHEMAS) | _JSON.map(json.dumps)
URLS = st.sampled_from(
    (
        "",
        "data:",
        "data:image/png;base64,",
        "data:image/png;base64,AAAA",
        "http://localhost/",
        "http://[::1]:0/",
        "http://10.0.0.1:99999/x",
        "https://user:pw@127.0.0.1/",
        "ftp://x",
        "http://\u2025/",
        "//",
        "http://" + "a" * 5000,
    )
)
PICTURES = st.sampled_from((PICTURE, PICTURE[:99], picture("JPEG")[:200], b"GIF89a", bytes(60_000)))
FIELDS = Told(
    {
        "elasticmm.v1.GenerateRequest.model": st.sampled_from(["checkpoint", "other"]),
        "elasticmm.v1.Message.role": st.sampled_from(["system", "user", "assistant", "tool"]),
        "elasticmm.v1.OutputFormat.json_schema": JSON_TEXTS,
        "elasticmm.v1.OutputFormat.regex": st.sampled_from(["a+", "(", "(?=a)", "(a{99}){99}", "."]),
        "elasticmm.v1.OutputFormat.grammar": st.sampled_from(['start: "a"', "start: start", "x", "%json {}"]),
        "elasticmm.v1.Tool.name": st.sampled_from(["f", "g", "f.g-1"]),
        "elasticmm.v1.Tool.parameters": JSON_TEXTS,
        "elasticmm.v1.ToolCall.name": st.just("f"),
        "elasticmm.v1.ToolCall.arguments": JSON_TEXTS,
        "elasticmm.v1.ImagePart.url": URLS,
        "elasticmm.v1.ImagePart.data": PICTURES,
        "elasticmm.v1.ImagePart.digest": st.just(b"x" * 32),
        "elasticmm.v1.SamplingParams.max_tokens": st.integers(1, 6),
        "elasticmm.v1.SamplingParams.logit_bias": st.floats(-100, 100),
        "elasticmm.v1.TokenIds.ids": st.integers(0, 619),
        "google.protobuf.Duration.seconds": st.integers(0, 400),
        "google.protobuf.Duration.nanos": st.integers(0, 999_999_999),
    }
)
GENERATES = any_message(pb.GenerateRequest, FIELDS, ask_for(max_tokens=4, seed=1)) | any_message(
    pb.GenerateRequest, FIELDS
)


@st.composite
def broken(draw: st.DrawFn, messages: st.SearchStrategy[Message]) -> bytes:
    """A message's bytes, some of them others, gone or more."""
    data = draw(messages).SerializeToString()
    at = draw(st.integers(0, len(data)))
    length = draw(st.integers(0, 4))
    return bytes(data[:at] + draw(st.binary(max_size=4)) + data[at + length :])
