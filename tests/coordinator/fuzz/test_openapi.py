"""Every operation of the published OpenAPI document, by schemathesis: bodies that fit it and that do not."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import httpx
import schemathesis
from hypothesis import given
from hypothesis import strategies as st
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks

from coordinator.openai.openapi import make_document
from tests.coordinator.fuzz.calls import JSON_TEXTS, PICTURE, URLS
from tests.coordinator.fuzz.conftest import Target
from tests.coordinator.fuzz.examples import examples
from tests.coordinator.fuzz.messages import TEXTS

OPERATIONS = [
    each.ok() for each in schemathesis.openapi.from_dict(make_document("test")).get_all_operations()
]
CASES = st.one_of(
    *(
        operation.as_strategy(generation_mode=mode)
        for operation in OPERATIONS
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    )
)
CHECKED = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
]


HEADER_NAMES = st.sampled_from(["content-type", "x-request-id", "authorization", "traceparent", "accept"])


def _header_value(data: bytes) -> bytes:
    """What HTTP lets pass: anything but control characters."""
    return bytes(byte for byte in data if byte >= 0x20 and byte != 0x7F).strip()


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def check_error(response: httpx.Response) -> None:
    """It is the caller's fault, and says what is wrong."""
    assert 400 <= response.status_code < 500 or response.status_code == 504, response.text
    error = response.json()["error"]
    assert error["message"]
    if error["param"] is not None:
        assert error["message"].startswith(f"{error['param']}: "), error


@examples(100)
@given(CASES)
def test_what_the_document_says(target: Target, case: schemathesis.Case) -> None:
    async def ask() -> httpx.Response:
        said = case.as_transport_kwargs(base_url=target.bench.http_url)
        body = json.dumps(said["json"]).encode() if "json" in said else said.get("data")
        return await target.http.request(said["method"], said["url"], headers=said["headers"], content=body)

    response = target.run(ask())
    case.validate_response(response, checks=CHECKED)
    if response.status_code != 200:
        check_error(response)


GOOD = {
    "model": "checkpoint",
    "messages": [
        {"role": "system", "content": "s"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "x"},
                {
                    "type": "image_url",
                    "image_url": {"url": f"data:image/png;base64,{b64encode(PICTURE).decode()}"},
                },
            ],
        },
    ],
    "max_tokens": 3,
    "n": 2,
    "stop": ["y"],
    "logit_bias": {"5": 1},
    "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}},
    "stream": True,
    "stream_options": {"include_usage": True},
}
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.floats(),
    st.integers(-(2**70), 2**70),
    TEXTS,
    URLS,
    st.just([]),
    st.just({}),
    st.just(["x"] * 10_000),
    JSON_TEXTS.map(_parsed),
)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A good body with one odd value somewhere, and perhaps broken bytes."""
    body = json.loads(json.dumps(GOOD))
    place = body
    while True:
        key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], dict | list) or draw(st.booleans()):
            break
        place = place[key]
    place[key] = draw(ODD)
    data = json.dumps(body).encode()
    if draw(st.integers(0, 3)):
        return data
    at = draw(st.integers(0, len(data)))
    return data[:at] + draw(st.binary(max_size=4)) + data[at + draw(st.integers(0, 4)) :]


@examples(100)
@given(bodies(), st.dictionaries(HEADER_NAMES, st.binary(max_size=30).map(_header_value), max_size=2))
def test_any_body(target: Target, body: bytes, headers: dict[str, bytes]) -> None:
    async def ask() -> httpx.Response:
        named = {"content-type": "application/json"} | headers
        return await target.http.post("/v1/chat/completions", content=body, headers=named)

    response = target.run(ask())
    if response.status_code != 200:
        check_error(response)
    elif response.headers["content-type"].startswith("text/event-stream"):
        assert response.text.endswith("data: [DONE]\n\n") or '"error"' in response.text
