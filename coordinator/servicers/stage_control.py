"""What stage servers call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc

from coordinator.cluster import Cluster
from coordinator.errors import InvalidFieldError
from coordinator.registry import Instance
from coordinator.stage_messages import InstanceInfo
from coordinator.wire.commands import from_command
from coordinator.wire.stages import to_info, to_report
from elasticmm.v1 import stage_control_pb2 as pb
from elasticmm.v1 import stage_control_pb2_grpc as pb_grpc

_LAST_WRITE_TIMEOUT_S = 1.0


class StageControlServicer(pb_grpc.StageControlServicer):
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def Attach(  # type: ignore[override]
        self, requests: AsyncIterator[pb.StageMessage], context: grpc.aio.ServicerContext
    ) -> None:
        """Two directions at once; the end of either ends the attachment."""
        instance = self._cluster.attach(await _read_register(requests))
        reading = asyncio.create_task(self._read_reports(instance, requests))
        writing = asyncio.create_task(_write_commands(instance, context))
        cause = "its stream ended"
        try:
            done, _ = await asyncio.wait((reading, writing), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except InvalidFieldError as error:
            cause = str(error)
            raise
        finally:
            reading.cancel()
            self._cluster.detach(instance, cause)
            # A write that is cut off half way leaves a call that cannot be ended with a status.
            await asyncio.wait((writing,), timeout=_LAST_WRITE_TIMEOUT_S)
            writing.cancel()
            await asyncio.gather(reading, writing, return_exceptions=True)

    async def _read_reports(self, instance: Instance, requests: AsyncIterator[pb.StageMessage]) -> None:
        async for message in requests:
            self._cluster.take(instance, to_report(message))


async def _read_register(requests: AsyncIterator[pb.StageMessage]) -> InstanceInfo:
    first = await anext(aiter(requests), None)
    if first is None or first.WhichOneof("message") != "register":
        raise InvalidFieldError("register", "must be the first message")
    return to_info(first.register)


async def _write_commands(instance: Instance, context: grpc.aio.ServicerContext) -> None:
    """Until the instance is given up, which an entry of None says."""
    while (command := await instance.outbox.get()) is not None:
        await context.write(from_command(command))
