"""Keys and TLS at the listener of metrics, and keys at the HTTP door's page of them."""

from __future__ import annotations

import shutil
import ssl
from pathlib import Path

import httpx
import pytest

from coordinator.access.keys import digest_of
from core.tls import TlsFiles
from tests.certificates import Authority
from tests.coordinator.conftest import TOKEN, MakeBench
from tests.ports import free_port

FILE = f"""
[[tenants.acme.keys]]
sha256 = "{digest_of("acme's")}"

[[tenants.ops.keys]]
sha256 = "{digest_of("scraper")}"
rights = ["metrics"]

[[tenants.ops.keys]]
sha256 = "{digest_of("boss")}"
rights = ["admin"]
"""


async def scrape(
    port: int, key: str | None = None, context: ssl.SSLContext | None = None, *, host: str | None = None
) -> httpx.Response:
    """`host`: the name that it is asked by, whoever has it."""
    scheme = "http" if context is None else "https"
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    if host is not None:
        headers["Host"] = host
    async with httpx.AsyncClient(verify=context or True, timeout=30) as client:
        return await client.get(f"{scheme}://127.0.0.1:{port}/metrics", headers=headers)


async def test_keys(make_bench: MakeBench, tmp_path: Path) -> None:
    (tmp_path / "tenants.toml").write_text(FILE)
    port = free_port()
    settings = {"tenants": tmp_path / "tenants.toml", "audit_log": tmp_path / "audit.jsonl"}
    await make_bench(metrics_port=port, **settings)
    for key in ("scraper", "boss", TOKEN):
        assert "elasticmm:ready 0.0" in (await scrape(port, key)).text
    for key, status in ((None, 401), ("wrong", 401), ("acme's", 403)):
        refused = await scrape(port, key)
        assert (refused.status_code, "elasticmm:" in refused.text) == (status, False)
    assert (await scrape(port)).headers["www-authenticate"] == "Bearer"
    audit = (tmp_path / "audit.jsonl").read_text()
    assert "access_refused" in audit
    assert (await scrape(port, "scraper", host="evil.example")).status_code == 200
    assert "wrong" not in audit


async def test_the_http_door_has_them_too(make_bench: MakeBench, tmp_path: Path) -> None:
    (tmp_path / "tenants.toml").write_text(FILE)
    port = free_port()
    await make_bench(http_port=port, tenants=tmp_path / "tenants.toml")
    read = await scrape(port, "scraper")
    assert "elasticmm:ready 0.0" in read.text
    assert read.headers["content-type"].startswith("text/plain; version=")
    for key, status in ((None, 401), ("acme's", 403)):
        refused = await scrape(port, key)
        assert (refused.status_code, refused.json()["error"]["type"] != "") == (status, True)


async def test_anyone_reads_them_while_there_are_no_keys(make_bench: MakeBench) -> None:
    port = free_port()
    await make_bench(metrics_port=port, allow_hosts=("prom.example",))
    for host in (None, "localhost:9400", "10.1.2.3", "prom.example:9400"):
        assert (await scrape(port, host=host)).status_code == 200


async def test_no_web_site_reads_them_by_its_own_name(make_bench: MakeBench) -> None:
    port = free_port()
    await make_bench(metrics_port=port)
    refused = await scrape(port, host="evil.example:9400")
    assert (refused.status_code, "elasticmm:" in refused.text) == (421, False)
    assert "'evil.example:9400'" in refused.text
    assert "--allow-host" in refused.text


def context_of(trusted: TlsFiles, own: TlsFiles | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(trusted.ca))
    if own is not None:
        context.load_cert_chain(own.cert, own.key)
    return context


async def test_mutual_tls(make_bench: MakeBench, tmp_path: Path) -> None:
    files, port = Authority(tmp_path).issue(), free_port()
    await make_bench(metrics_port=port, tls=files)
    assert (await scrape(port, context=context_of(files, files))).status_code == 200
    for context in (context_of(files, None), None):
        with pytest.raises(httpx.TransportError):
            await scrape(port, context=context)


async def test_renewed_certificates_are_taken_without_a_restart(
    make_bench: MakeBench, tmp_path: Path
) -> None:
    files, later = Authority(tmp_path / "a").issue(), Authority(tmp_path / "b").issue()
    port = free_port()
    await make_bench(metrics_port=port, tls=files, tls_client_cert=False)
    context = context_of(files, None)
    for host in (None, "evil.example"):
        assert (await scrape(port, context=context, host=host)).status_code == 200
    for old, new in ((files.cert, later.cert), (files.key, later.key), (files.ca, later.ca)):
        shutil.copy(new, old)
    assert (await scrape(port, context=context_of(later, None))).status_code == 200
    with pytest.raises(httpx.TransportError):
        await scrape(port, context=context_of(Authority(tmp_path / "c").issue(), None))
