"""Bodies that are no bodies: refused, and never a fault of the server's."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.coordinator.openai.conftest import CHAT, error_of
from tests.coordinator.openai.scripted import Script

JSON = {"content-type": "application/json"}
BODIES = [
    b"",
    b"[]",
    b"null",
    b"{",
    b'{"messages": NaN}',
    b'{"messages": "\xff"}',
    b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
    b'{"messages": ' + b"[" * 20_000,
    b'{"messages": ' + b'{"a":' * 4_000 + b"1" + b"}" * 4_001,
    b'{"messages": [{"role": "user", "content": "x"}], "seed": 1e400}',
    b'{"messages": [{"role": "user", "content": "x"}], "n": 99999999999999999999999}',
]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body[:30]))
async def test_no_json_of_ours(body: bytes) -> None:
    async with Script().client() as client:
        error_of(await client.post(CHAT, content=body, headers=JSON))


@pytest.mark.parametrize(
    "kind", ["text/plain", "text/plain;application/json", "application/x-www-form-urlencoded", ""]
)
async def test_what_any_web_page_may_send(kind: str) -> None:
    """Without asking first: the body may be good, no call is made of it."""
    script = Script()
    async with script.client() as client:
        body = b'{"messages": [{"role": "user", "content": "x"}]}'
        for headers in ({"content-type": kind}, {}):
            assert (
                "application/json"
                in error_of(await client.post(CHAT, content=body, headers=headers), 415)["message"]
            )
    assert not script.calls


async def test_the_type_may_say_more() -> None:
    async with Script().client() as client:
        headers = {"content-type": "Application/JSON; charset=utf-8"}
        body = b'{"messages": [{"role": "user", "content": "x"}]}'
        assert (await client.post(CHAT, content=body, headers=headers)).status_code == 200


async def test_too_large_as_announced() -> None:
    async with Script().client() as client:
        response = await client.post(CHAT, content=b" " * 40_001, headers=JSON)
    assert error_of(response, 413)["code"] == "too_large"
    assert response.headers["connection"] == "close"


async def test_too_large_without_a_word() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(41):
            yield b" " * 1000

    async with Script().client() as client:
        error_of(await client.post(CHAT, content=pieces(), headers=JSON), 413)


async def test_too_many_values() -> None:
    async with Script(message_bytes=10**7).client() as client:
        response = await client.post(CHAT, content=b"{" + b'"":0,' * 300_001 + b'"":0}', headers=JSON)
    error_of(response, 413)


async def test_what_is_wrong_is_not_repeated_at_length() -> None:
    message = {"role": "x" * 9_000, "content": "x"}
    assert len(error_of(await Script().chat(messages=[message]))["message"]) < 600
    assert len(error_of(await Script().chat(**{"x" * 9_000: 1}))["message"]) < 600


async def test_a_large_body_is_read() -> None:
    script = Script(message_bytes=10**6)
    await script.chat(messages=[{"role": "user", "content": "x" * 400_000}])
    assert len(script.calls[0].messages[0].parts[0].text) == 400_000


@pytest.mark.parametrize(("method", "path", "status"), [("GET", CHAT, 405), ("GET", "/nowhere", 404)])
async def test_no_such_page(method: str, path: str, status: int) -> None:
    async with Script().client() as client:
        error_of(await client.request(method, path), status)
