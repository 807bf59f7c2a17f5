"""The page's routes, to be mounted in any starlette application.

The page itself is open to all and says nothing. What it shows needs the cluster token or an API key with the
right `admin`, which travels in a header only: addresses end up in logs and histories.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from coordinator.access.guard import Proof
from coordinator.errors import NotAllowedError, ServiceError

Authenticate = Callable[[Proof, str], object]

_FOLDER = Path(__file__).parent
_FILES = {
    "/": ("index.html", "text/html"),
    "/dashboard/page.css": ("page.css", "text/css"),
    **{
        f"/dashboard/{name}.js": (f"{name}.js", "text/javascript")
        for name in ("page", "canvas", "charts", "colours", "comparisons", "tables", "waterfall")
    },
}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def dashboard_routes(take: Callable[[], dict[str, Any]], authenticate: Authenticate) -> list[Route]:
    """`take` gives what is shown, as JSON values; `authenticate` is given headers and who sends them, and
    raises ServiceError for who may not see it. Files are read now, once.
    """

    async def snapshot(request: Request) -> Response:
        try:
            authenticate(request.headers.items(), _peer_of(request))
        except ServiceError as error:
            status = 403 if isinstance(error, NotAllowedError) else 401
            return JSONResponse({"error": str(error)}, status, _HEADERS | {"WWW-Authenticate": "Bearer"})
        return JSONResponse(take(), headers=_HEADERS)

    files = [Route(path, _serve_file(name, kind)) for path, (name, kind) in _FILES.items()]
    return [*files, Route("/dashboard/snapshot.json", snapshot)]


def _peer_of(request: Request) -> str:
    """Who sends it, for the audit log."""
    return "" if request.client is None else f"{request.client.host}:{request.client.port}"


def _serve_file(name: str, kind: str) -> Callable[[Request], Any]:
    content = (_FOLDER / name).read_bytes()

    async def serve(_: Request) -> Response:
        return Response(content, media_type=kind, headers=_HEADERS)

    return serve
