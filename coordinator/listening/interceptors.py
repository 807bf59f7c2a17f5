"""What every call passes: domain exceptions become statuses, and some services need the cluster token."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

import grpc

from coordinator.access.guard import Guard
from coordinator.access.principal import Right
from coordinator.errors import ServiceError, UnauthenticatedError
from coordinator.wire.status import DETAILS_KEY, code_of, details_of
from core.access import has_token, why_refused

log = logging.getLogger(__name__)

Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler | None]]

# Which function of the handler record serves which kind of call.
_KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


class StatusInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Servicer methods raise ServiceError; the client gets its status and details."""

    async def intercept_service(
        self, continuation: Continuation, details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler | None:
        handler = await continuation(details)
        if handler is None:
            return None
        return _wrapped(handler, details.method)


class TokenInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Calls of the guarded services must carry the cluster token."""

    def __init__(self, token: str, guarded_services: Collection[str]) -> None:
        self._token = token
        self._guarded = frozenset(guarded_services)

    async def intercept_service(
        self, continuation: Continuation, details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler | None:
        handler = await continuation(details)
        if handler is None or service_of(details) not in self._guarded:
            return handler
        if has_token(details.invocation_metadata, self._token):
            return handler
        return replaced(handler, _refuse)


class GuardInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Calls of each of these services need its right; what they do with it is the servicers' part."""

    def __init__(self, guard: Guard, rights: Mapping[str, Right]) -> None:
        self._guard = guard
        self._rights = dict(rights)

    async def intercept_service(
        self, continuation: Continuation, details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler | None:
        handler = await continuation(details)
        right = self._rights.get(service_of(details))
        if handler is None or right is None:
            return handler
        try:
            self._guard.find(details.invocation_metadata or (), right)
        except ServiceError as error:
            return replaced(handler, self._refusal(error))
        return handler

    def _refusal(self, error: ServiceError) -> Callable[..., Any]:
        async def refuse(_request: Any, context: grpc.aio.ServicerContext) -> None:
            self._guard.note_refusal(error, context.peer())
            await abort(context, error)

        return refuse


def service_of(details: grpc.HandlerCallDetails) -> str:
    return str(details.method).rsplit("/", 1)[0].lstrip("/")


async def _refuse(_request: Any, context: grpc.aio.ServicerContext) -> None:
    lack = why_refused(context.invocation_metadata() or ())
    await abort(context, UnauthenticatedError(f"this service needs the cluster token: {lack}"))


def _wrapped(handler: grpc.RpcMethodHandler, method: str) -> grpc.RpcMethodHandler:
    inner = behaviour_of(handler)
    if not inspect.iscoroutinefunction(inner):
        return handler  # health and reflection, which bring their own statuses

    async def behave(request: Any, context: grpc.aio.ServicerContext) -> Any:
        try:
            return await inner(request, context)
        except ServiceError as error:
            await abort(context, error)
        except Exception as error:
            if isinstance(error, grpc.RpcError | grpc.aio.AbortError):
                raise
            log.exception("%s: failed", method)
            await context.abort(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")

    return replaced(handler, behave)


async def abort(context: grpc.aio.ServicerContext, error: ServiceError) -> None:
    await context.abort(code_of(error), str(error), ((DETAILS_KEY, details_of(error)),))


def behaviour_of(handler: grpc.RpcMethodHandler) -> Callable[..., Any]:
    behaviours = (getattr(handler, kind) for kind in _KINDS)
    found: Callable[..., Any] = next(each for each in behaviours if each is not None)
    return found


def replaced(handler: grpc.RpcMethodHandler, behaviour: Callable[..., Any]) -> grpc.RpcMethodHandler:
    kind = next(kind for kind in _KINDS if getattr(handler, kind) is not None)
    make = getattr(grpc, f"{kind}_rpc_method_handler")
    return make(behaviour, handler.request_deserializer, handler.response_serializer)
