"""gRPC calls are bounded once it is known whose they are, before their requests are read.

gRPC's own bound would be for all services alike: clients could lock out stage servers, admins and probes.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from grpc_health.v1 import health

from coordinator.errors import OverloadedError
from coordinator.listening.crowd import Crowd
from coordinator.listening.interceptors import abort, behaviour_of, replaced, service_of

Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler | None]]

_CHECK = f"/{health.SERVICE_NAME}/Check"
_MAX_WATCHERS = 256


class CrowdInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """`crowd` is of all calls but those of `free_services`; who watches health is of a crowd apart, so that
    neither keeps the other out, and who asks for it once is always answered.
    """

    def __init__(self, crowd: Crowd, free_services: tuple[str, ...]) -> None:
        self._crowd = crowd
        self._watchers = Crowd("health", _MAX_WATCHERS, "health watchers")
        self._free_services = frozenset(free_services)

    async def intercept_service(
        self, continuation: Continuation, details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler | None:
        handler = await continuation(details)
        service = service_of(details)
        if handler is None or details.method == _CHECK or service in self._free_services:
            return handler
        if service == health.SERVICE_NAME:
            return _bounded(handler, self._watchers)
        return _bounded(handler, self._crowd)


def _bounded(handler: grpc.RpcMethodHandler, crowd: Crowd) -> grpc.RpcMethodHandler:
    inner = behaviour_of(handler)

    async def answer(request: Any, context: grpc.aio.ServicerContext) -> Any:
        try:
            with crowd.inside():
                return await inner(request, context)
        except OverloadedError as error:
            await abort(context, error)

    async def answer_in_pieces(request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
        try:
            with crowd.inside():
                async for piece in inner(request, context):
                    yield piece
        except OverloadedError as error:
            await abort(context, error)

    return replaced(handler, answer_in_pieces if inspect.isasyncgenfunction(inner) else answer)
