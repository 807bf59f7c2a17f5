"""Servers and channels with certificates, also renewed ones."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from core.tls import Dialer, TlsFiles, add_port
from tests.certificates import LOOPBACK, Authority


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    return Authority(tmp_path / "ours").issue()


class Server:
    def __init__(self) -> None:
        self.server = grpc.aio.server()
        self.servicer = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self.servicer, self.server)
        self.port = 0

    async def start(self, tls: TlsFiles | None, *, wants_client_cert: bool = True) -> None:
        self.port = add_port(self.server, f"{LOOPBACK}:0", tls, wants_client_cert=wants_client_cert)
        await self.server.start()

    @property
    def endpoint(self) -> str:
        return f"{LOOPBACK}:{self.port}"


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    await made.servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    yield made
    await made.server.stop(None)


async def status_of(channel: grpc.aio.Channel) -> grpc.StatusCode:
    async with channel:
        try:
            await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60)
        except grpc.aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK


def trusting(endpoint: str, tls: TlsFiles) -> grpc.aio.Channel:
    return grpc.aio.secure_channel(endpoint, grpc.ssl_channel_credentials(tls.ca.read_bytes()))


async def test_both_ends_prove_themselves(server: Server, files: TlsFiles) -> None:
    await server.start(files)
    assert await status_of(Dialer(files).open(server.endpoint)) is grpc.StatusCode.OK
    assert await status_of(trusting(server.endpoint, files)) is grpc.StatusCode.UNAVAILABLE
    assert await status_of(Dialer(None).open(server.endpoint)) is grpc.StatusCode.UNAVAILABLE


async def test_clients_need_no_certificate_where_none_is_wanted(server: Server, files: TlsFiles) -> None:
    await server.start(files, wants_client_cert=False)
    for channel in (trusting(server.endpoint, files), Dialer(files).open(server.endpoint)):
        assert await status_of(channel) is grpc.StatusCode.OK
    assert await status_of(Dialer(None).open(server.endpoint)) is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("wants_client_cert", [True, False])
async def test_renewed_certificates_are_shown_without_a_restart(
    server: Server, files: TlsFiles, tmp_path: Path, wants_client_cert: bool
) -> None:
    await server.start(files, wants_client_cert=wants_client_cert)
    dialer = Dialer(files)
    assert await status_of(dialer.open(server.endpoint)) is grpc.StatusCode.OK
    renewed = Authority(tmp_path / "new").issue()
    for old, new in ((files.cert, renewed.cert), (files.key, renewed.key), (files.ca, renewed.ca)):
        new.replace(old)
    assert await status_of(dialer.open(server.endpoint)) is grpc.StatusCode.OK
    assert await status_of(Dialer(files).open(server.endpoint)) is grpc.StatusCode.OK


async def test_renewed_files_that_do_not_fit_change_nothing(server: Server, files: TlsFiles) -> None:
    await server.start(files)
    dialer = Dialer(files)
    files.key.write_text("half of a k")
    assert await status_of(dialer.open(server.endpoint)) is grpc.StatusCode.OK
    files.key.unlink()
    assert await status_of(dialer.open(server.endpoint)) is grpc.StatusCode.OK
