"""Load over HTTPS, to the listener that the HTTP door has."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from queue import Queue

import pytest

from cli.endpoint import Endpoint
from cli.load.doors import default_url, open_door
from cli.load.sending import Answered
from cli.load.workload import PlannedRequest
from coordinator.listening.crowd import Crowd
from coordinator.openai.listener import HttpListener
from core.tls import TlsFiles
from elasticmm_client import ElasticMMError
from elasticmm_client.tls import Tls
from tests.certificates import Authority
from tests.cli.conftest import RunCli
from tests.coordinator.openai.scripted import Script

REQUEST = PlannedRequest(0, "text", "hi", (), 2, None)


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    """Of a door that is reached by an address which its certificate does not name."""
    return Authority(tmp_path / "tls").issue("door.test", expected="door.test")


def trusting(files: TlsFiles) -> Tls:
    return Tls(files.ca, files.cert, files.key, files.name)


@asynccontextmanager
async def https(files: TlsFiles, *, wants_client_cert: bool = True) -> AsyncIterator[tuple[str, Script]]:
    """The URL of a door with a script behind it."""
    script = Script()
    context = files.server_context(wants_client_cert=wants_client_cert)
    listener = HttpListener(script.app(), 1.0, context, 60.0, Crowd("http", 99, "max_connections"))
    port = listener.open("127.0.0.1", 0)
    try:
        yield f"https://127.0.0.1:{port}", script
    finally:
        await listener.close()


async def ask(url: str, tls: Tls | None) -> Answered:
    async with open_door("http", Endpoint("127.0.0.1:1", None, tls=tls), url, 60.0) as asker:
        await asker.connect()
        return await asker.ask(REQUEST)


async def test_both_ends_show_certificates(files: TlsFiles) -> None:
    async with https(files) as (url, script):
        answered = await ask(url, trusting(files))
    assert (answered.output_tokens, len(script.calls)) == (9, 1)
    assert answered.ttft_s is not None


async def test_a_door_that_asks_for_none(files: TlsFiles) -> None:
    async with https(files, wants_client_cert=False) as (url, _):
        assert (await ask(url, Tls(files.ca, name=files.name))).output_tokens == 9


@pytest.mark.parametrize("wrong", ["no certificate", "another name", "another authority", "plain text"])
async def test_who_does_not_fit_is_told(files: TlsFiles, tmp_path: Path, wrong: str) -> None:
    other = Authority(tmp_path / "other").issue("door.test", expected="door.test")
    tls = {
        "no certificate": Tls(files.ca, name=files.name),
        "another name": replace(trusting(files), name="other.test"),
        "another authority": trusting(other),
        "plain text": None,
    }[wrong]
    async with https(files) as (url, script):
        with pytest.raises(ElasticMMError) as caught:
            await ask(url.replace("https", "http") if tls is None else url, tls)
        assert caught.value.code == "UNAVAILABLE"
        assert not script.calls


@contextmanager
def served(files: TlsFiles) -> Iterator[str]:
    """The URL of a door on a thread and loop of its own."""
    urls: Queue[str] = Queue()
    loop, done = asyncio.new_event_loop(), asyncio.Event()

    async def serve() -> None:
        async with https(files) as (url, _):
            urls.put(url)
            await done.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        yield urls.get(timeout=60)
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join()
        loop.close()


def test_the_scheme_follows_from_how_the_coordinator_is_reached(files: TlsFiles) -> None:
    assert default_url(Endpoint("h:1", None)) == "http://h:8000"
    assert default_url(Endpoint("h:1", None, http="http://h:7")) == "http://h:7"
    assert default_url(Endpoint("h:1", None, tls=trusting(files))) == "https://h:8000"


def test_the_command_takes_the_files_from_the_environment(
    run_cli: RunCli, files: TlsFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("CA", files.ca), ("CERT", files.cert), ("KEY", files.key), ("NAME", files.name)):
        monkeypatch.setenv(f"ELASTICMM_TLS_{name}", str(value))
    words = ("bench", "--requests", 3, "--concurrency", 2, "--prompt-tokens", 5, "--max-tokens", 4)
    with served(files) as url:
        result = run_cli(*words, "--door", "http", "--url", url, "--address", "127.0.0.1:1")
    assert result.exit_code == 0, result.output
    assert "3 answered, 0 failed" in result.stdout
