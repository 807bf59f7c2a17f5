"""The routes of the HTTP door."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from coordinator.access.hosts import HostNames
from coordinator.errors import ServiceError
from coordinator.openai import chats, completions
from coordinator.openai.chat_schema import ChatRequest
from coordinator.openai.errors import Fault, fault_of
from coordinator.openai.generation import Generation, enter, fault_response
from coordinator.openai.host_check import HostCheck
from coordinator.openai.openapi import make_document
from coordinator.openai.schema import CompletionRequest
from coordinator.openai.served import Served, Visit


def make_app(
    served: Served, more_routes: Sequence[Route] = (), *, hosts: HostNames | None = None
) -> Starlette:
    """`hosts`: names that it may be reached by while no key is asked for; None: any, as behind a certificate,
    which is for no other site's name.
    """
    pages = Pages(served)
    routes = [
        Route("/v1/chat/completions", Generation(served, ChatRequest, chats.to_asked), methods=["POST"]),
        Route(
            "/v1/completions", Generation(served, CompletionRequest, completions.to_asked), methods=["POST"]
        ),
        Route("/v1/models", pages.models),
        Route("/v1/models/{model:path}", pages.model),
        Route("/health", pages.health),
        Route("/ready", pages.ready),
        Route("/version", pages.version),
        Route("/openapi.json", pages.document),
        *more_routes,
    ]
    checks = [] if hosts is None else [Middleware(HostCheck, names=hosts, is_open=served.is_open)]
    return Starlette(
        routes=routes, middleware=checks, exception_handlers={HTTPException: _refuse, ServiceError: _tell}
    )


class Pages:
    """All that is only to be read."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._created = int(time.time())
        self._document = to_json(make_document(served.version))

    async def models(self, request: Request) -> Response:
        visit = await enter(request, self._served)
        return _json({"object": "list", "data": [self._model(visit)]})

    async def model(self, request: Request) -> Response:
        visit = await enter(request, self._served)
        name = request.path_params["model"]
        if name != visit.description.model:
            message = f"model: {name!r} is not served here"
            return fault_response(Fault(404, message, "invalid_request_error", "model", "model_not_found"))
        return _json(self._model(visit))

    async def health(self, _: Request) -> Response:
        """This process answers."""
        return _json({"status": "ok"})

    async def ready(self, _: Request) -> Response:
        """There are instances for every stage."""
        if self._served.is_ready():
            return _json({"status": "ready"})
        message = "the cluster lacks a stage, or is still starting"
        return fault_response(Fault(503, message, "service_unavailable_error", None, "unavailable"))

    async def version(self, _: Request) -> Response:
        return _json({"version": self._served.version})

    async def document(self, _: Request) -> Response:
        return Response(self._document, media_type="application/json")

    def _model(self, visit: Visit) -> dict[str, Any]:
        description = visit.description
        return {
            "id": description.model,
            "object": "model",
            "created": self._created,
            "owned_by": "elasticmm",
            "max_model_len": description.context_tokens,
        }


async def _refuse(request: Request, error: Exception) -> Response:
    """No such page, or not by this method."""
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}"
    response = fault_response(Fault(error.status_code, message, "invalid_request_error"))
    response.headers.update(error.headers or {})
    return response


async def _tell(_: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    return fault_response(fault_of(error, str))


def _json(value: dict[str, Any]) -> Response:
    return Response(to_json(value), media_type="application/json")
