"""grpc.health.v1 and server reflection."""

from __future__ import annotations

import asyncio

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class HealthBoard:
    """Which services serve; watchers are told when that changes."""

    def __init__(self) -> None:
        self._servicer = health.aio.HealthServicer()
        self._known: dict[str, bool] = {}
        self._updates: set[asyncio.Task[None]] = set()

    def add_to(
        self, server: grpc.aio.Server, service_names: tuple[str, ...], *, reflects: bool = True
    ) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)
        if not reflects:
            return
        names = (*service_names, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)

    def note(self, service: str, is_serving: bool) -> None:
        """Takes effect at once for this board, within a turn of the loop for clients."""
        if self._known.get(service) == is_serving:
            return
        self._known[service] = is_serving
        task = asyncio.create_task(self._servicer.set(service, _SERVING if is_serving else _NOT_SERVING))
        self._updates.add(task)
        task.add_done_callback(self._updates.discard)

    def is_serving(self, service: str) -> bool:
        return self._known.get(service, False)

    async def leave(self) -> None:
        """Everything stops serving, for good."""
        await self._servicer.enter_graceful_shutdown()
