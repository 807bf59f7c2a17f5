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


async def test_another_type() -> None:
    async with Script().client() as client:
        error_of(await client.post(CHAT, content=b"{}", headers={"content-type": "text/plain"}), 415)


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


async def test_a_large_body_is_read() -> None:
    script = Script(message_bytes=10**6)
    await script.chat(messages=[{"role": "user", "content": "x" * 400_000}])
    assert len(script.calls[0].messages[0].parts[0].text) == 400_000


@pytest.mark.parametrize(("method", "path", "status"), [("GET", CHAT, 405), ("GET", "/nowhere", 404)])
async def test_no_such_page(method: str, path: str, status: int) -> None:
    async with Script().client() as client:
        error_of(await client.request(method, path), status)
