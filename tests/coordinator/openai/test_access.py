"""API keys and TLS at the HTTP door."""

from __future__ import annotations

import shutil
import ssl
from pathlib import Path

import httpx
import pytest

from coordinator.access.keys import digest_of
from coordinator.tracing.parent import TraceParent
from core.tls import TlsFiles
from tests.certificates import Authority
from tests.coordinator.openai.conftest import CHAT, MakeHttp, error_of
from tests.coordinator.openai.scripted import MESSAGES, Script

FILE = f'[[tenants.acme.keys]]\nsha256 = "{digest_of("secret")}"\n'
ADMINS = f'[[tenants.boss.keys]]\nsha256 = "{digest_of("admin")}"\nrights = ["admin"]\n'
BODY = {"messages": MESSAGES, "max_tokens": 2}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def test_keys(make_http: MakeHttp, tmp_path: Path) -> None:
    (tmp_path / "tenants.toml").write_text(FILE + ADMINS)
    door = await make_http("epd", tenants=tmp_path / "tenants.toml")
    response = await door.http.post(CHAT, json=BODY)
    assert error_of(response, 401)["type"] == "authentication_error"
    assert error_of(response, 401)["message"] == "this call needs an API key: none was given"
    assert response.headers["www-authenticate"] == "Bearer"
    unknown = error_of(await door.http.post(CHAT, json=BODY, headers=bearer("wrong")), 401)
    assert unknown["message"] == "this call needs an API key: the one that was given is not known here"
    error_of(await door.http.post(CHAT, json=BODY, headers=bearer("admin")), 403)
    assert (await door.http.post(CHAT, json=BODY, headers=bearer("secret"))).status_code == 200
    foreign = await door.http.post(CHAT, json=BODY | {"tenant": "other"}, headers=bearer("secret"))
    assert error_of(foreign, 403)["param"] == "tenant"


async def test_a_stranger_is_refused_before_the_body_is_looked_at() -> None:
    script = Script(key="k")
    async with script.client() as client:
        error_of(await client.post(CHAT, content=b"{" * 99_000), 401)
        assert (await client.post(CHAT, json=BODY, headers=bearer("k"))).status_code == 200
    assert script.asked[0] == (None, "127.0.0.1:123")
    assert len(script.calls) == 1


@pytest.mark.parametrize(
    ("path", "status"),
    [("/v1/models", 401), ("/v1/models/org/m", 401), ("/health", 200), ("/ready", 200), ("/version", 200)],
)
async def test_pages_that_need_a_key(path: str, status: int) -> None:
    async with Script(key="k").client() as client:
        assert (await client.get(path)).status_code == status
        assert (await client.get(path, headers=bearer("k"))).status_code == 200


def context_of(trusted: TlsFiles, own: TlsFiles | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(trusted.ca))
    if own is not None:
        context.load_cert_chain(own.cert, own.key)
    return context


async def ready(url: str, context: ssl.SSLContext) -> int:
    async with httpx.AsyncClient(verify=context) as client:
        return (await client.get(f"{url}/ready")).status_code


async def test_mutual_tls(make_http: MakeHttp, tmp_path: Path) -> None:
    files = Authority(tmp_path).issue()
    door = await make_http(tls=files)
    assert door.url.startswith("https://")
    assert await ready(door.url, context_of(files, files)) == 503
    with pytest.raises(httpx.TransportError):
        await ready(door.url, context_of(files, None))
    with pytest.raises(httpx.TransportError):
        await ready(door.url.replace("https", "http"), context_of(files, files))


async def test_renewed_certificates_are_taken_without_a_restart(make_http: MakeHttp, tmp_path: Path) -> None:
    files, later = Authority(tmp_path / "a").issue(), Authority(tmp_path / "b").issue()
    door = await make_http(tls=files, tls_client_cert=False)
    assert await ready(door.url, context_of(files, None)) == 503
    for old, new in ((files.cert, later.cert), (files.key, later.key), (files.ca, later.ca)):
        shutil.copy(new, old)
    assert await ready(door.url, context_of(later, None)) == 503


async def test_the_trace_of_a_call_is_that_of_its_requests() -> None:
    script = Script()
    headers = {"traceparent": "00-a", "tracestate": "b=1"}
    async with script.client() as client:
        assert (await client.post(CHAT, json=BODY | {"n": 2}, headers=headers)).status_code == 200
    assert [call.trace for call in script.calls] == [TraceParent("00-a", "b=1")] * 2
