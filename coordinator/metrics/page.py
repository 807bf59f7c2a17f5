"""The metrics as a page of the HTTP door."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from coordinator.metrics.listener import Admit, Render


def metrics_route(render: Render, admit: Admit) -> Route:
    """As the listener of metrics has them; what `admit` raises is the application's to tell."""

    async def metrics(request: Request) -> Response:
        peer = "" if request.client is None else f"{request.client.host}:{request.client.port}"
        admit(tuple(request.headers.items()), peer)
        content_type, body = render(request.headers.get("accept", ""))
        return Response(body, headers={"Content-Type": content_type})

    return Route("/metrics", metrics)
