"""The stream to the coordinator: attach, obey commands, report, come back after a loss."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from typing import Any, cast

import grpc

from core.access import token_metadata
from core.stages import Stage, roles_name
from core.tls import Dialer, TlsFiles
from elasticmm.v1 import inference_pb2, stage_control_pb2, stage_control_pb2_grpc
from stage_servers.encode_stage import EncodeJob
from stage_servers.instance import Instance
from stage_servers.media_pull import MediaSource
from stage_servers.wire import (
    cache_from,
    cached_pool_from,
    counters_to,
    group_from,
    group_number,
    holder_from,
    peer_from,
    roles_from,
    sequence_from,
    span_from,
    stage_number,
)

logger = logging.getLogger(__name__)

_RETRY_S = 0.5
_SILENCE_S = 5.0  # without an answer, after which it is said
_REMIND_S = 60.0
_REFUSED = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.ALREADY_EXISTS,
    }
)


class RefusedError(RuntimeError):
    """The coordinator does not take this instance; trying again would not help."""


class CoordinatorLink:
    """Keeps one Attach stream open until stopped by the coordinator or by the process."""

    def __init__(
        self,
        instance: Instance,
        address: str,
        token: str,
        registration: stage_control_pb2.Register,
        tls: TlsFiles | None = None,
    ) -> None:
        self._dialer = Dialer(tls)
        self._instance = instance
        self._address = address
        self._metadata = token_metadata(token)
        self._registration = registration
        self._interval_s = 1.0
        self._stopped = False
        self.attached = asyncio.Event()

    async def run(self) -> None:
        """Serves until the coordinator says stop; raises RefusedError."""
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        while not self._stopped:
            # A channel each time, since certificates may have been renewed.
            async with self._dialer.open(self._address, options) as channel:
                try:
                    await self._attach(channel)
                except grpc.aio.AioRpcError as error:
                    if error.code() in _REFUSED:
                        raise RefusedError(f"{error.code().name}: {error.details()}") from error
                    logger.warning("coordinator lost: %s %s", error.code().name, error.details())
            self.attached.clear()
            self._instance.caches.detach()
            await self._instance.drop_all()
            self._instance.reports.clear()
            if not self._stopped:
                await asyncio.sleep(_RETRY_S)

    async def _attach(self, channel: grpc.aio.Channel) -> None:
        stub = cast(
            "stage_control_pb2_grpc.StageControlAsyncStub", stage_control_pb2_grpc.StageControlStub(channel)
        )
        call = stub.Attach(metadata=self._metadata, wait_for_ready=True)
        writing = asyncio.create_task(self._write(call))
        telling = asyncio.create_task(self._tell_of_silence())
        try:
            async for message in call:
                self._obey(message)
                if self._stopped:
                    return
        finally:
            telling.cancel()
            # Else it would take the next stream's first report, for a stream that is over.
            writing.cancel()
            (end,) = await asyncio.gather(writing, return_exceptions=True)
            if isinstance(end, Exception):
                logger.warning("reports to the coordinator broke off: %r", end)
            call.cancel()

    async def _tell_of_silence(self) -> None:
        """A coordinator that cannot be reached is waited for, but not without a word."""
        pause_s = _SILENCE_S
        while not self.attached.is_set():
            try:
                await asyncio.wait_for(self.attached.wait(), pause_s)
            except TimeoutError:
                logger.warning(
                    "waiting for the coordinator at %s: it does not answer (is it up, is that its address, "
                    "do both speak TLS or neither?)",
                    self._address,
                )
                pause_s = _REMIND_S

    async def _write(self, call: grpc.aio.StreamStreamCall[Any, Any]) -> None:
        """Until the stream breaks, which who reads it hears of."""
        async with contextlib.aclosing(self._messages()) as messages:
            async for message in messages:
                await call.write(message)

    async def _messages(self) -> AsyncGenerator[stage_control_pb2.StageMessage]:
        yield stage_control_pb2.StageMessage(register=self._present())
        await self.attached.wait()
        clock = asyncio.get_running_loop().time
        due_s = clock() + self._interval_s
        while True:
            with contextlib.suppress(TimeoutError):
                yield await asyncio.wait_for(self._instance.reports.next(), due_s - clock())
            if clock() >= due_s:  # also while reports never pause: they say nothing of transfers
                yield self._heartbeat()
                self._instance.cache_control.expire()
                due_s = clock() + self._interval_s

    def _present(self) -> stage_control_pb2.Register:
        """The registration with what the instance plays by now; roles that were left open stay open."""
        if self._registration.roles:
            self._registration.group = group_number(self._instance.group)
            del self._registration.roles[:]
            self._registration.roles.extend(self._roles())
        return self._registration

    def _roles(self) -> list[inference_pb2.Stage.ValueType]:
        return [stage_number(stage) for stage in Stage if stage in self._instance.roles]

    def _heartbeat(self) -> stage_control_pb2.StageMessage:
        heartbeat = stage_control_pb2.Heartbeat(
            load=self._instance.load(),
            roles=self._roles(),
            group=group_number(self._instance.group),
            transfers=[counters_to(counters) for counters in self._instance.transfers()],
            caches=self._instance.caches.counters(),
        )
        return stage_control_pb2.StageMessage(heartbeat=heartbeat)

    def _obey(self, message: stage_control_pb2.CoordinatorMessage) -> None:
        command = message.WhichOneof("message")
        if command == "registered":
            self._registered(message.registered)
        elif command == "encode":
            self._instance.encode(_encode_job(message.encode))
        elif command == "prefill":
            prefill = message.prefill
            self._instance.prefill(
                sequence_from(prefill.sequence),
                peer_from(prefill.decode),
                prefill.prefix_tokens,
                holder_from(prefill),
            )
        elif command == "decode":
            self._instance.decode(sequence_from(message.decode.sequence))
        elif command == "migrate":
            self._migrate(message.migrate)
        elif command == "cancel":
            self._instance.cancel_soon((message.cancel.request_id, message.cancel.attempt))
        elif command == "set_roles":
            self._set_roles(message.set_roles)
        elif command == "flush_cache":
            flush = message.flush_cache
            self._instance.cache_control.flush(flush.tenant or None, cached_pool_from(flush.pool))
        elif command == "set_cache_shares":
            self._instance.cache_control.set_shares(dict(message.set_cache_shares.shares))
        elif command == "stop":
            self._stopped = True

    def _set_roles(self, command: stage_control_pb2.SetRolesCommand) -> None:
        instance = self._instance
        instance.roles = roles_from(command.roles)
        instance.group = group_from(command.group) or instance.group
        logger.info("now playing %s for %s", roles_name(instance.roles), instance.group.value)
        instance.reports.send(self._heartbeat())

    def _migrate(self, command: stage_control_pb2.MigrateCommand) -> None:
        key = (command.request_id, command.attempt)
        self._instance.migrate(key, command.new_attempt, peer_from(command.to))

    def _registered(self, registered: stage_control_pb2.Registered) -> None:
        self._instance.instance_id = registered.instance_id
        self._registration.instance_id = registered.instance_id
        if registered.heartbeat_interval_ms:
            self._interval_s = registered.heartbeat_interval_ms / 1000
        self._instance.aim_for(registered.tpot_target_us / 1e6)
        self.attached.set()
        self._instance.caches.attach()
        logger.info("attached to %s as %s", self._address, registered.instance_id)


def _encode_job(command: stage_control_pb2.EncodeCommand) -> EncodeJob:
    media = command.media
    return EncodeJob(
        key=(command.request_id, command.attempt),
        source=MediaSource(
            digest=media.digest,
            size_bytes=media.size_bytes,
            endpoint=media.endpoint,
            segment=media.segment,
            host_id=media.host_id,
            num_pixels=media.width * media.height,
        ),
        span=span_from(command.span),
        prefill=peer_from(command.prefill),
        cache=cache_from(command.cache) if command.HasField("cache") else None,
    )


async def run_until_stopped(
    link: CoordinatorLink, stop: asyncio.Event, crashed: asyncio.Future[None]
) -> None:
    """Runs the link until it ends by itself or `stop` is set.

    Raises what the link raises, and what the engine crashed with.
    """
    running = asyncio.create_task(link.run())
    stopping = asyncio.create_task(stop.wait())
    ends: set[asyncio.Future[Any]] = {running, stopping, crashed}
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not running.done():
        running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    if crashed.done():
        crashed.result()
