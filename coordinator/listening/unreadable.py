"""Messages that cannot be read: gRPC itself would call them a fault of the server's."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from coordinator.errors import UnreadableError

Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler | None]]


@dataclass(frozen=True, slots=True)
class _Unreadable:
    """In the place of a message, until somebody is there to be told."""

    reason: str


class ReadingInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Innermost: methods get messages only; for what is none UnreadableError is raised in their place."""

    async def intercept_service(
        self, continuation: Continuation, details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler | None:
        handler = await continuation(details)
        return None if handler is None else _reading(handler)


def _reading(handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
    asks, answers = (
        "stream" if flag else "unary" for flag in (handler.request_streaming, handler.response_streaming)
    )
    inner = getattr(handler, f"{asks}_{answers}")
    if not inspect.iscoroutinefunction(inner) or handler.request_deserializer is None:
        return handler

    async def behave(request: Any, context: grpc.aio.ServicerContext) -> Any:
        readable = _all_read(request) if handler.request_streaming else _read(request)
        return await inner(readable, context)

    make = getattr(grpc, f"{asks}_{answers}_rpc_method_handler")
    return make(behave, _tolerant(handler.request_deserializer), handler.response_serializer)


def _tolerant(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError as error:
            return _Unreadable(str(error))

    return read


def _read(message: Any) -> Any:
    """Raises UnreadableError."""
    if isinstance(message, _Unreadable):
        raise UnreadableError(f"the message cannot be read, or has text that is not UTF-8 ({message.reason})")
    return message


async def _all_read(messages: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for message in messages:
        yield _read(message)
