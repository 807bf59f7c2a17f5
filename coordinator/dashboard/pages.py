"""The page's routes, to be mounted in any starlette application.

The page itself is open to all and says nothing; what it shows needs the cluster
token, which it takes from its address behind "#token=", where no server sees it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from core.access import has_token

_FOLDER = Path(__file__).parent
_FILES = {
    "/": ("index.html", "text/html"),
    "/dashboard/page.css": ("page.css", "text/css"),
    "/dashboard/page.js": ("page.js", "text/javascript"),
    "/dashboard/charts.js": ("charts.js", "text/javascript"),
    "/dashboard/tables.js": ("tables.js", "text/javascript"),
}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def dashboard_routes(take: Callable[[], dict[str, Any]], token: str) -> list[Route]:
    """`take` gives what is shown, as JSON values. Files are read now, once."""

    async def snapshot(request: Request) -> Response:
        if not has_token(request.headers.items(), token):
            return JSONResponse({"error": "the cluster token is missing or wrong"}, 401, _HEADERS)
        return JSONResponse(take(), headers=_HEADERS)

    files = [Route(path, _serve_file(name, kind)) for path, (name, kind) in _FILES.items()]
    return [*files, Route("/dashboard/snapshot.json", snapshot)]


def _serve_file(name: str, kind: str) -> Callable[[Request], Any]:
    content = (_FOLDER / name).read_bytes()

    async def serve(_: Request) -> Response:
        return Response(content, media_type=kind, headers=_HEADERS)

    return serve
