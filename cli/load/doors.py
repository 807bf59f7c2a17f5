"""The doors of a cluster that load can be sent through."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from cli.endpoint import Endpoint
from cli.load import DoorName
from cli.load.grpc_asker import GrpcAsker
from cli.load.http_asker import HttpAsker
from cli.load.sending import Asker
from elasticmm_client import AsyncClient
from elasticmm_client.tls import Tls

_HTTP_PORT = 8000  # where `up` opens it


@asynccontextmanager
async def open_door(
    name: DoorName, endpoint: Endpoint, url: str | None, timeout_s: float
) -> AsyncIterator[Asker]:
    """Nothing is sent before the Asker is used. `url` is of HTTP; None: as `up` opens it on that host."""
    if name == "grpc":
        async with AsyncClient(endpoint.address, api_key=endpoint.api_key, tls=endpoint.tls) as client:
            yield GrpcAsker(client, timeout_s)
        return
    server_name = None if endpoint.tls is None else endpoint.tls.name
    async with _http_client(endpoint, url or default_url(endpoint), timeout_s) as http_client:
        yield HttpAsker(http_client, server_name)


def default_url(endpoint: Endpoint) -> str:
    """As `up` wrote it down, else at its usual port."""
    if endpoint.http:
        return endpoint.http
    host = endpoint.address.rpartition(":")[0]
    return f"{'http' if endpoint.tls is None else 'https'}://{host}:{_HTTP_PORT}"


def _http_client(endpoint: Endpoint, url: str, timeout_s: float) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=url,
        headers={"authorization": f"Bearer {endpoint.api_key}"} if endpoint.api_key else {},
        timeout=timeout_s,
        limits=httpx.Limits(max_connections=None),
        verify=True if endpoint.tls is None else _tls_context(endpoint.tls),
    )


def _tls_context(tls: Tls) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=None if tls.ca is None else str(tls.ca))
    if tls.cert is not None and tls.key is not None:
        context.load_cert_chain(tls.cert, tls.key)
    return context
