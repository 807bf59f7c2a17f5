"""What admins and the CLI call."""

# ruff: noqa: ARG002  (gRPC dictates the signatures)

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc

from coordinator.errors import CannotMigrateError
from coordinator.migration import MigrationOutcome
from coordinator.state import CoordinatorState
from coordinator.wire.stages import from_status
from elasticmm.v1 import admin_pb2 as pb
from elasticmm.v1 import admin_pb2_grpc as pb_grpc

Migrate = Callable[[str, str | None], asyncio.Future[MigrationOutcome]]


class AdminServicer(pb_grpc.AdminServicer):
    def __init__(
        self, state: Callable[[], CoordinatorState], migrate: Migrate, shut_down: Callable[[], None]
    ) -> None:
        self._state = state
        self._migrate = migrate
        self._shut_down = shut_down

    async def GetStatus(
        self, request: pb.GetStatusRequest, context: grpc.aio.ServicerContext
    ) -> pb.GetStatusResponse:
        state = self._state()
        return pb.GetStatusResponse(
            model=state.model,
            version=state.version,
            uptime_s=state.uptime_s,
            requests_waiting=state.num_waiting,
            requests_running=state.num_running,
            requests_finished=state.num_finished,
            requests_failed=state.num_failed,
            instances=[from_status(instance) for instance in state.instances],
            topology=state.topology,
            instances_missing=state.num_missing,
        )

    async def Migrate(
        self, request: pb.MigrateRequest, context: grpc.aio.ServicerContext
    ) -> pb.MigrateResponse:
        outcome = await self._migrate(request.request_id, request.instance_id or None)
        if not outcome.has_moved:
            raise CannotMigrateError(outcome.reason)
        return pb.MigrateResponse(
            from_instance_id=outcome.source,
            to_instance_id=outcome.target,
            pause_ms=outcome.pause_ms,
            size_bytes=outcome.size_bytes,
            transport=outcome.transport,
        )

    async def Shutdown(
        self, request: pb.ShutdownRequest, context: grpc.aio.ServicerContext
    ) -> pb.ShutdownResponse:
        self._shut_down()
        return pb.ShutdownResponse()
