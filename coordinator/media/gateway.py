"""The media gateway process: `python -m coordinator.media.gateway`, started by the coordinator.

Settings come as one JSON line on stdin, which stays open: further lines bring new
keys and shares, and its end means that the coordinator is gone, and the gateway goes
too. When it serves it prints one JSON line with its port.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from coordinator.access.guard import Guard
from coordinator.access.keys import Keyring
from coordinator.access.principal import Right
from coordinator.audit import AuditLog
from coordinator.listening.interceptors import GuardInterceptor, StatusInterceptor, TokenInterceptor
from coordinator.listening.options import bind, endpoint, server_options
from coordinator.listening.unreadable import ReadingInterceptor
from coordinator.media.fetch import UrlFetcher
from coordinator.media.intake import Intake
from coordinator.media.resolver import Resolver
from coordinator.media.segments import SegmentFolder
from coordinator.media.servicer import MediaServicer, MediaStoreServicer
from coordinator.media.settings import GatewaySettings, parse_settings
from coordinator.media.store import MediaStore
from core.clock import MonotonicClock
from core.log_lines import start_log
from elasticmm.v1 import inference_pb2, inference_pb2_grpc, media_store_pb2, media_store_pb2_grpc

log = logging.getLogger(__name__)

MEDIA_SERVICE = inference_pb2.DESCRIPTOR.services_by_name["Media"].full_name
STORE_SERVICE = media_store_pb2.DESCRIPTOR.services_by_name["MediaStore"].full_name

_SWEEP_INTERVAL_S = 5.0
_STOP_GRACE_S = 0.5
_MAX_SETTINGS_BYTES = 64 << 20  # with the keys of all tenants


@dataclass(frozen=True, slots=True)
class ServingGateway:
    port: int
    store: MediaStore
    resolver: Resolver
    guard: Guard


@asynccontextmanager
async def serving(settings: GatewaySettings) -> AsyncIterator[ServingGateway]:
    """A gateway on the running loop. Leaves no segment behind."""
    limits = settings.limits
    segments = SegmentFolder()
    if reaped := segments.reap():
        log.warning("media gateway: removed %d segments that dead gateways had left", reaped)
    store = MediaStore(limits.store_bytes, limits.media_ttl_s, MonotonicClock())
    store.set_shares(settings.shares)
    intake = Intake(store, segments, limits)
    fetcher = UrlFetcher(limits)
    resolver = Resolver(store, intake, fetcher, limits)
    audit = AuditLog(None if settings.audit_log is None else Path(settings.audit_log))
    guard = Guard(
        settings.cluster_token, Keyring(settings.keys), audit, MonotonicClock(), is_open=settings.is_open
    )
    server = _make_server(settings, guard)
    port = bind(
        server,
        endpoint(settings.host, settings.port),
        settings.tls,
        wants_client_cert=settings.tls_client_cert,
    )
    own_endpoint = endpoint(settings.public_host, port)
    inference_pb2_grpc.add_MediaServicer_to_server(MediaServicer(intake, guard), server)
    media_store_pb2_grpc.add_MediaStoreServicer_to_server(
        MediaStoreServicer(resolver, store, own_endpoint), server
    )
    await _add_standard_services(server, reflects=settings.reflection)
    await server.start()
    sweeper = asyncio.create_task(_sweep_forever(store))
    try:
        yield ServingGateway(port, store, resolver, guard)
    finally:
        sweeper.cancel()
        await server.stop(_STOP_GRACE_S)
        await resolver.close()
        await fetcher.close()
        intake.close()
        audit.close()
        segments.remove_own()


def _make_server(settings: GatewaySettings, guard: Guard) -> grpc.aio.Server:
    return grpc.aio.server(
        interceptors=(
            TokenInterceptor(settings.cluster_token, {STORE_SERVICE}),
            GuardInterceptor(guard, {MEDIA_SERVICE: Right.INFER}),
            StatusInterceptor(),
            ReadingInterceptor(),
        ),
        options=server_options(settings.message_bytes, settings.max_connections),
    )


async def _add_standard_services(server: grpc.aio.Server, *, reflects: bool) -> None:
    servicer = health.aio.HealthServicer()
    for name in ("", MEDIA_SERVICE, STORE_SERVICE):
        await servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    names = (MEDIA_SERVICE, STORE_SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
    if reflects:
        reflection.enable_server_reflection(names, server)


async def _sweep_forever(store: MediaStore) -> None:
    while True:
        await asyncio.sleep(_SWEEP_INTERVAL_S)
        store.sweep()


async def _run() -> None:
    stdin = await _open_stdin()
    settings = parse_settings(await stdin.readline())
    start_log("INFO", settings.log_format)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # its lines would hold clients' URLs
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with serving(settings) as gateway:
        print(json.dumps({"port": gateway.port}), flush=True)
        ends = {asyncio.create_task(stop.wait()), asyncio.create_task(_obey(stdin, gateway))}
        _, waiting = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()


async def _obey(stdin: asyncio.StreamReader, gateway: ServingGateway) -> None:
    """Takes new keys and shares until the coordinator is gone."""
    while line := await stdin.readline():
        settings = parse_settings(line)
        gateway.guard.use(Keyring(settings.keys))
        gateway.store.set_shares(settings.shares)


async def _open_stdin() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=_MAX_SETTINGS_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    return reader


def main() -> None:
    import uvloop

    uvloop.run(_run())


if __name__ == "__main__":
    main()
