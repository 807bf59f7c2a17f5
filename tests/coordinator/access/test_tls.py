"""The coordinator and its gateway process through TLS, to our own client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.access.keys import digest_of
from coordinator.calls import ImageSource
from coordinator.config import CoordinatorConfig
from coordinator.server import Coordinator
from core.tls import TlsFiles
from elasticmm_client import AsyncClient, ElasticMMError, NotRunning, Tls, user_message
from tests.certificates import Authority
from tests.coordinator.conftest import CHECKPOINT, TOKEN, picture, until

Start = Callable[..., object]


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    return Authority(tmp_path / "tls").issue("door.test", expected="door.test")


@pytest.fixture
async def start(files: TlsFiles) -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        async def make(**settings: object) -> Coordinator:
            config = CoordinatorConfig(CHECKPOINT, TOKEN, tls=files, shutdown_grace_s=0.05, **settings)
            coordinator = Coordinator(config)
            await coordinator.start()
            stack.push_async_callback(coordinator.stop)
            await until(lambda: coordinator.media_endpoint)
            return coordinator

        yield make


def mutual(files: TlsFiles) -> Tls:
    return Tls(files.ca, files.cert, files.key, files.name)


async def use_all(coordinator: Coordinator, tls: Tls | None, api_key: str | None = None) -> None:
    """Asks the coordinator and uploads to the gateway, with errors as they come."""
    address = f"127.0.0.1:{coordinator.port}"
    async with AsyncClient(address, token=TOKEN, api_key=api_key, tls=tls) as client:
        await client.status()
        with pytest.raises(ElasticMMError) as caught:  # nobody plays the stages
            await client.generate([user_message("Look", picture())]).result()
        if caught.value.code != "UNAVAILABLE" or "ENCODE" not in caught.value.message:
            raise caught.value


async def test_clients_prove_themselves_to_both_listeners(start: Start, files: TlsFiles) -> None:
    coordinator = await start()
    await use_all(coordinator, mutual(files))
    for tls in (None, Tls(files.ca, name=files.name), replace(mutual(files), name="other.test")):
        with pytest.raises(NotRunning):
            await use_all(coordinator, tls)


async def test_the_coordinator_reaches_its_gateway(start: Start) -> None:
    coordinator = await start()
    source = ImageSource(data=picture())
    item = await coordinator.media.resolve("r", "a", source, "image")
    assert (item.width, item.height) == (112, 84)


async def test_keys_in_place_of_certificates(start: Start, files: TlsFiles, tmp_path: Path) -> None:
    tenants = tmp_path / "tenants.toml"
    tenants.write_text(f'[[tenants.a.keys]]\nsha256 = "{digest_of("mine")}"\n')
    coordinator = await start(tls_client_cert=False, tenants=tenants)
    trusting = Tls(files.ca, name=files.name)
    await use_all(coordinator, trusting, "mine")
    with pytest.raises(ElasticMMError) as caught:
        await use_all(coordinator, trusting)
    assert caught.value.code == "UNAUTHENTICATED"
    with pytest.raises(NotRunning):
        await use_all(coordinator, None, "mine")
