"""Media from URLs: http, https and data, within time and size, and never into private networks."""

from __future__ import annotations

import asyncio
import base64
import binascii
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from coordinator.config import MediaLimits
from coordinator.errors import InvalidFieldError
from coordinator.media.addresses import Resolve, checked_address, resolve_host

if TYPE_CHECKING:
    import httpx

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_URL_CHARS = 4096
_MAX_PORT = 65535


def is_data_url(url: str) -> bool:
    return url[:5].lower() == "data:"


def decode_data_url(url: str, max_bytes: int) -> bytes:
    """Raises InvalidFieldError("url")."""
    head, comma, payload = url[5:].partition(",")
    if not comma:
        raise InvalidFieldError("url", "is a data: URL without a comma")
    if len(payload) > 4 * max_bytes:
        raise InvalidFieldError("url", f"is larger than the limit of {max_bytes} bytes")
    if not head.lower().endswith(";base64"):
        return unquote_to_bytes(payload)
    try:
        return base64.b64decode(unquote_to_bytes(payload), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidFieldError("url", f"is a data: URL that is not base64 ({error})") from error


class UrlFetcher:
    """One client for all fetches; proxies and environment settings play no part."""

    def __init__(
        self,
        limits: MediaLimits,
        resolve: Resolve = resolve_host,
        transport: httpx.AsyncBaseTransport | None = None,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        """`trust`: whose certificates hold for https; None: those of the public CAs."""
        import httpx

        self._limits = limits
        self._resolve = resolve
        self._client = httpx.AsyncClient(
            trust_env=False,
            follow_redirects=False,
            timeout=None,
            transport=transport,
            verify=True if trust is None else trust,
            # Connections are told apart by address only: one that is kept would serve another host of that
            # address, whose certificate was never looked at.
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    async def close(self) -> None:
        await self._client.aclose()

    @asynccontextmanager
    async def open(self, url: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """The content in pieces; raises InvalidFieldError("url"), also while pieces are read."""
        import httpx

        try:
            async with asyncio.timeout(self._limits.url_timeout_s) as deadline:
                response = await self._follow(url)
                try:
                    _check_response(response, self._limits.media_bytes)
                    # Undecoded: a compressed body must not grow past the limit.
                    yield response.aiter_raw()
                finally:
                    await response.aclose()
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise InvalidFieldError("url", f"took longer than {self._limits.url_timeout_s:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:  # the latter: where a redirect leads
            raise InvalidFieldError("url", f"could not be fetched ({_reason(error)})") from error

    async def _follow(self, url: str) -> httpx.Response:
        """The response after redirects, each of which is checked like the first URL."""
        target = _parse(url)
        for _ in range(self._limits.url_redirects + 1):
            response = await self._get(target)
            if response.status_code not in _REDIRECTS:
                return response
            location = response.headers.get("location", "")
            await response.aclose()
            target = _parse(str(target.join(_parse_reference(location))))
        raise InvalidFieldError("url", f"redirects more than {self._limits.url_redirects} times")

    async def _get(self, target: httpx.URL) -> httpx.Response:
        """Connects to the very address that was checked; Host and certificate check keep the name."""
        port = target.port or (443 if target.scheme == "https" else 80)
        address = await checked_address(
            target.host, port, allow_private=self._limits.allow_private_urls, resolve=self._resolve
        )
        request = self._client.build_request(
            "GET",
            target.copy_with(host=address),
            headers={
                "Host": target.netloc.decode("ascii"),
                "Accept": "image/*",
                "Accept-Encoding": "identity",
            },
            extensions={"sni_hostname": target.host},
        )
        return await self._client.send(request, stream=True)


def _parse(url: str) -> httpx.URL:
    if len(url) > _MAX_URL_CHARS:
        raise InvalidFieldError("url", f"is longer than {_MAX_URL_CHARS} characters")
    target = _parse_reference(url)
    if target.scheme not in ("http", "https"):
        raise InvalidFieldError("url", f"scheme {target.scheme!r} is none of http, https, data")
    if not target.host:
        raise InvalidFieldError("url", "names no host")
    if target.port is not None and not 0 < target.port <= _MAX_PORT:
        raise InvalidFieldError("url", f"port {target.port} is not between 1 and {_MAX_PORT}")
    if target.userinfo:
        raise InvalidFieldError("url", "must not carry a user name or password")
    return target


def _parse_reference(url: str) -> httpx.URL:
    import httpx

    try:
        return httpx.URL(url)
    except (httpx.InvalidURL, ValueError, TypeError) as error:
        raise InvalidFieldError("url", f"is no URL ({error})") from error


def _check_response(response: httpx.Response, max_bytes: int) -> None:
    if response.status_code != 200:
        raise InvalidFieldError("url", f"answered with HTTP status {response.status_code}")
    declared = response.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise InvalidFieldError("url", f"is larger than the limit of {max_bytes} bytes")


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
