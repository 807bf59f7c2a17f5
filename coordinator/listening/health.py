"""grpc.health.v1 and server reflection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

_Response = health_pb2.HealthCheckResponse


class HealthBoard(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Which services serve; who watches one is told when that changes.

    The library's own for asyncio tells nobody any more once one of a service's watchers has left.
    """

    def __init__(self) -> None:
        self._statuses: dict[str, int] = {"": _Response.SERVING}
        self._changed = asyncio.Event()
        self._is_leaving = False

    def add_to(
        self, server: grpc.aio.Server, service_names: tuple[str, ...], *, reflects: bool = True
    ) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(self, server)
        if not reflects:
            return
        names = (*service_names, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)

    def note(self, service: str, is_serving: bool) -> None:
        """Takes effect at once; who watches is told within a turn of the loop."""
        status = _Response.SERVING if is_serving else _Response.NOT_SERVING
        if not self._is_leaving and self._statuses.get(service) != status:
            self._statuses[service] = status
            self._tell()

    def leave(self) -> None:
        """Everything stops serving, for good."""
        self._is_leaving = True
        self._statuses = dict.fromkeys(self._statuses, _Response.NOT_SERVING)
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: Any
    ) -> health_pb2.HealthCheckResponse:
        status = self._statuses.get(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"service: {request.service!r} is not served here")
            raise AssertionError("abort raises")
        return _Response(status=status)

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, _: Any
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        told = None
        while True:
            changed = self._changed
            status = self._statuses.get(request.service, _Response.SERVICE_UNKNOWN)
            if status != told:
                yield _Response(status=status)
            told = status
            if changed is self._changed:
                await changed.wait()
