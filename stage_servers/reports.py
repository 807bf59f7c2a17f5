"""What an instance tells the coordinator, collected on the event loop in order."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

import grpc

from core.stages import Stage
from elasticmm.v1 import stage_control_pb2
from stage_servers.wire import stage_number

logger = logging.getLogger(__name__)

Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Started:
    """When the first step of a prefill began, and what it found."""

    start_ns: int
    cached_tokens: int  # before the first one that it computed


class Reports:
    """An outbox of StageMessages; the coordinator link drains it."""

    def __init__(self) -> None:
        self._outbox: asyncio.Queue[stage_control_pb2.StageMessage] = asyncio.Queue()

    async def next(self) -> stage_control_pb2.StageMessage:
        return await self._outbox.get()

    def clear(self) -> None:
        """Drops what was meant for a coordinator that is gone."""
        while not self._outbox.empty():
            self._outbox.get_nowait()

    def send(self, message: stage_control_pb2.StageMessage) -> None:
        self._outbox.put_nowait(message)

    def stage_done(
        self,
        key: Key,
        stage: Stage,
        *,
        start_ns: int,
        end_ns: int,
        item_index: int = 0,
        transport: str = "",
        cached_tokens: int = 0,
        device_s: float = 0.0,
    ) -> None:
        """A stage of a request ended well; times are Unix nanoseconds, `device_s` is of ENCODE only."""
        report = stage_control_pb2.StageReport(
            request_id=key[0],
            attempt=key[1],
            stage=stage_number(stage),
            item_index=item_index,
            start_ns=start_ns,
            end_ns=end_ns,
            transport=transport,
            cached_tokens=cached_tokens,
            device_s=device_s,
        )
        took_ms, facts = (end_ns - start_ns) / 1e6, {"request_id": key[0]}
        logger.debug("request %s: %s took %.1f ms", key[0], stage.name, took_ms, extra=facts)
        self.send(stage_control_pb2.StageMessage(stage=report))

    def prefilled(self, key: Key, started: Started, end_ns: int, transport: str) -> None:
        self.stage_done(
            key,
            Stage.PREFILL,
            start_ns=started.start_ns,
            end_ns=end_ns,
            transport=transport,
            cached_tokens=started.cached_tokens,
        )

    def failed(
        self,
        key: Key,
        stage: Stage,
        code: grpc.StatusCode,
        message: str,
        *,
        item_index: int = 0,
        field: str = "",
    ) -> None:
        """A stage of a request failed; `field` names the request's part at fault, if it is at fault."""
        logger.warning("request %s: %s failed, %s", key[0], stage.name, message, extra={"request_id": key[0]})
        report = stage_control_pb2.FailureReport(
            request_id=key[0],
            attempt=key[1],
            stage=stage_number(stage),
            item_index=item_index,
            code=code.value[0],
            message=message,
            field=field,
        )
        self.send(stage_control_pb2.StageMessage(failure=report))

    def needed(self, key: Key, item_indices: tuple[int, ...]) -> None:
        """Embeddings that the prefill was not to be sent and cannot do without."""
        report = stage_control_pb2.NeedReport(request_id=key[0], attempt=key[1], item_indices=item_indices)
        self.send(stage_control_pb2.StageMessage(need=report))

    def moved(self, key: Key, new_attempt: int, *, pause_ns: int, size_bytes: int, transport: str) -> None:
        """The sequence decodes elsewhere from now on, under the new attempt."""
        report = stage_control_pb2.MigrationReport(
            request_id=key[0],
            attempt=key[1],
            new_attempt=new_attempt,
            has_moved=True,
            pause_ns=pause_ns,
            size_bytes=size_bytes,
            transport=transport,
        )
        self.send(stage_control_pb2.StageMessage(migration=report))

    def stayed(self, key: Key, new_attempt: int, reason: str) -> None:
        """The sequence did not move: it goes on here, if it has not ended."""
        report = stage_control_pb2.MigrationReport(
            request_id=key[0], attempt=key[1], new_attempt=new_attempt, has_moved=False, reason=reason
        )
        self.send(stage_control_pb2.StageMessage(migration=report))
