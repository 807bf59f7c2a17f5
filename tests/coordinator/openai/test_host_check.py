"""By which names the HTTP door is reached while it asks for no key."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from coordinator.access.hosts import HostNames
from coordinator.access.keys import digest_of
from core.access import token_metadata
from core.tls import TlsFiles
from tests.certificates import Authority
from tests.coordinator.conftest import TOKEN, MakeBench
from tests.coordinator.openai.conftest import (
    CHAT,
    HttpBench,
    MakeHttp,
    error_of,
    note_descriptions,
    stand_before,
)
from tests.coordinator.openai.scripted import MESSAGES, Script
from tests.coordinator.openai.test_access import bearer, context_of

BODY = {"messages": MESSAGES, "max_tokens": 2}
EVIL = {"host": "evil.example:8000"}
FILE = f'[[tenants.acme.keys]]\nsha256 = "{digest_of("secret")}"\n'


async def test_a_web_sites_name_is_refused_and_the_mend_said(door: HttpBench) -> None:
    error = error_of(await door.http.post(CHAT, json=BODY, headers=EVIL), 421)
    assert (error["type"], error["code"]) == ("invalid_request_error", "host_not_allowed")
    assert "'evil.example:8000'" in error["message"]
    assert "--allow-host" in error["message"]
    await door.bench.assert_idle()


@pytest.mark.parametrize("path", ["/v1/models", "/version", "/openapi.json", "/nowhere"])
async def test_pages_by_that_name_too(door: HttpBench, path: str) -> None:
    error_of(await door.http.get(path, headers=EVIL | bearer("any")), 421)


async def test_what_the_admin_allows(make_http: MakeHttp) -> None:
    door = await make_http("epd", allow_hosts=("*.example",))
    assert (await door.http.post(CHAT, json=BODY, headers=EVIL)).status_code == 200
    error_of(await door.http.get("/version", headers={"host": "example"}), 421)


async def test_the_dashboard_is_part_of_the_door(make_bench: MakeBench) -> None:
    bench = await make_bench(http_port=0)
    async with httpx.AsyncClient(base_url=bench.http_url) as client:
        for path in ("/", "/dashboard/snapshot.json", "/metrics"):
            error_of(await client.get(path, headers=EVIL | dict(token_metadata(TOKEN))), 421)
            assert (await client.get(path, headers=dict(token_metadata(TOKEN)))).status_code == 200


async def test_a_front_without_its_coordinator_says_so(make_bench: MakeBench) -> None:
    """It cannot know then whether keys are asked for."""
    door = await stand_before(await make_bench())
    await door.bench.coordinator.server.stop(None)
    assert error_of(await door.http.get("/version", headers=EVIL), 503)["code"] == "unavailable"
    await door.close()


async def test_a_front_asks_once_whether_keys_are_wanted(make_bench: MakeBench, tmp_path: Path) -> None:
    (tmp_path / "tenants.toml").write_text(FILE)
    door = await stand_before(await make_bench("epd", tenants=tmp_path / "tenants.toml"))
    asked = note_descriptions(door)
    for _ in range(3):
        assert (await door.http.get("/v1/models", headers=EVIL | bearer("secret"))).status_code == 200
    assert asked.count(()) == 1
    await door.close()


async def test_probes_may_call_by_any_name(door: HttpBench) -> None:
    for path in ("/health", "/ready"):
        assert (await door.http.get(path, headers=EVIL)).status_code == 200


async def test_who_says_no_name_is_no_browser() -> None:
    async with Script(hosts=HostNames()).client() as client:
        request = client.build_request("GET", "/version")
        assert (await client.send(request)).status_code == 421
        del request.headers["host"]
        assert (await client.send(request)).status_code == 200


async def test_with_keys_the_name_does_not_matter(make_http: MakeHttp, tmp_path: Path) -> None:
    (tmp_path / "tenants.toml").write_text(FILE)
    door = await make_http("epd", tenants=tmp_path / "tenants.toml")
    for _ in range(2):
        answer = await door.http.post(CHAT, json=BODY, headers=EVIL | bearer("secret"))
        assert answer.status_code == 200
        error_of(await door.http.post(CHAT, json=BODY, headers=EVIL), 401)


async def test_with_tls_the_certificate_says_the_name(make_http: MakeHttp, tmp_path: Path) -> None:
    files: TlsFiles = Authority(tmp_path).issue()
    door = await make_http(tls=files, tls_client_cert=False)
    async with httpx.AsyncClient(base_url=door.url, verify=context_of(files, None)) as client:
        assert (await client.get("/version", headers=EVIL)).status_code == 200
