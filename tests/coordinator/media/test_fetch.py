"""URLs: what comes, what does not, and what must never be asked for."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator

import httpx
import pytest
import trustme

from coordinator.config import MediaLimits
from coordinator.errors import InvalidFieldError
from coordinator.media.addresses import resolve_host
from coordinator.media.fetch import UrlFetcher, decode_data_url
from tests.coordinator.conftest import picture
from tests.coordinator.media.conftest import WebServer, page, redirect

THIS_HOST = (
    "127.0.0.1",
    "localhost",
    "LOCALHOST",
    "127.1",
    "0",
    "0.0.0.0",
    "2130706433",
    "017700000001",
    "0177.1",
    "0x7f000001",
    "0x7f.0x0.0x0.0x1",
    "127\u30020\u30020\u30021",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[64:ff9b::7f00:1]",
    "169.254.169.254",
    "2852039166",
    "[::ffff:a9fe:a9fe]",
    "[fe80::1]",
)
ALLOWED = MediaLimits(allow_private_urls=True, media_bytes=100_000)


@pytest.fixture
async def fetcher() -> AsyncIterator[UrlFetcher]:
    fetcher = UrlFetcher(ALLOWED)
    yield fetcher
    await fetcher.close()


async def fetch(fetcher: UrlFetcher, url: str) -> bytes:
    async with fetcher.open(url) as pieces:
        return b"".join([piece async for piece in pieces])


async def refusal(fetcher: UrlFetcher, url: str) -> str:
    with pytest.raises(InvalidFieldError) as caught:
        await fetch(fetcher, url)
    assert caught.value.field == "url"
    return caught.value.reason


async def test_a_picture(web: WebServer, fetcher: UrlFetcher) -> None:
    assert await fetch(fetcher, web.url("/picture", "localhost")) == picture()
    assert web.requests == [f"localhost:{web.port} /picture"]


async def test_redirects_are_followed(web: WebServer, fetcher: UrlFetcher) -> None:
    web.pages["/a"] = redirect("/b?x=1")
    web.pages["/b?x=1"] = redirect(web.url("/picture"))
    assert await fetch(fetcher, web.url("/a")) == picture()


async def test_too_many_redirects(web: WebServer, fetcher: UrlFetcher) -> None:
    web.pages["/loop"] = redirect("/loop")
    assert "redirects more than 3 times" in await refusal(fetcher, web.url("/loop"))
    assert len(web.requests) == 4


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/missing", "HTTP status 404"),
        ("/declared", "larger than the limit"),
    ],
)
async def test_what_does_not_come(web: WebServer, fetcher: UrlFetcher, path: str, reason: str) -> None:
    assert reason in await refusal(fetcher, web.url(path))


async def test_a_page_that_never_comes(web: WebServer) -> None:
    fetcher = UrlFetcher(MediaLimits(allow_private_urls=True, url_timeout_s=0.2))
    assert "took longer than 0.2 s" in await refusal(fetcher, web.url("/hang"))
    await fetcher.close()


async def test_a_closed_port(fetcher: UrlFetcher) -> None:
    assert "could not be fetched" in await refusal(fetcher, "http://127.0.0.1:1/x")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://example.com/x", "scheme"),
        ("file:///etc/passwd", "scheme"),
        ("gopher://127.0.0.1/", "scheme"),
        ("picture.png", "scheme"),
        ("http:///x", "names no host"),
        ("http://user:secret@example.com/", "user name"),
        ("http://exa mple.com/", ""),
        ("http://[::1", ""),
        ("http://host:99999/", "port 99999 is not between 1 and 65535"),
        ("http://127.0.0.1:65536/", "port 65536"),
        ("http://127.0.0.1:0/", "port 0"),
        ("http://127.0.0.1:-1/", ""),
        ("http://127.0.0.1:x/", ""),
        ("http://:pass@example.com/", "user name"),
        ("http://8.8.8.8\\@127.0.0.1/", "user name"),
        ("FILE:///etc/passwd", "scheme"),
        ("file://127.0.0.1/etc/passwd", "scheme"),
        ("//127.0.0.1/", "scheme"),
        ("ws://127.0.0.1/", "scheme"),
        ("http+unix://%2Frun%2Fx/", "scheme"),
        ("jar:http://127.0.0.1/", "scheme"),
        ("http:127.0.0.1/", "names no host"),
        ("http://127.0.0.1/\r\nX: y", "no URL"),
        ("http://\uff11\uff12\uff17.0.0.1/", "no URL"),
        ("http://" + "a" * 5000, "longer than"),
        ("http://no-such-host.invalid/x", "does not resolve"),
    ],
)
async def test_urls_that_are_none_of_ours(fetcher: UrlFetcher, url: str, reason: str) -> None:
    assert reason in await refusal(fetcher, url)


async def test_private_addresses_are_never_connected_to(web: WebServer) -> None:
    fetcher = UrlFetcher(MediaLimits())
    for host in THIS_HOST:
        assert "not public" in await refusal(fetcher, web.url("/picture", host)), host
    assert not web.requests
    await fetcher.close()


@pytest.mark.parametrize("host", THIS_HOST)
async def test_redirects_are_checked_like_what_was_asked_for(web: WebServer, host: str) -> None:
    """Only the first name is let through."""

    async def resolve(name: str, port: int) -> list[str]:
        return ["93.184.216.34"] if name == "public.test" else await resolve_host(name, port)

    sent: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request.url.host)
        return httpx.Response(307, headers={b"location": web.url("/picture", host).encode()})

    fetcher = UrlFetcher(MediaLimits(), resolve, httpx.MockTransport(answer))
    assert "not public" in await refusal(fetcher, "http://public.test/")
    assert sent == ["93.184.216.34"]
    await fetcher.close()


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("file:///etc/passwd", "scheme"),
        ("data:image/png;base64,AAAA", "could not be fetched"),
        ("http://0177.0.0.1/", "Invalid IPv4 address"),
        ("http://user:secret@public.test/", "user name"),
        ("//public.test:0/", "port 0"),
        ("http://public.test:x/", "could not be fetched"),
        ("http://exa mple.test/", ""),
    ],
)
async def test_redirects_to_what_nobody_may_ask_for(location: str, reason: str) -> None:
    async def resolve(_host: str, _port: int) -> list[str]:
        return ["93.184.216.34"]

    answered = httpx.Response(302, headers={"location": location})
    fetcher = UrlFetcher(MediaLimits(), resolve, httpx.MockTransport(lambda _request: answered))
    assert reason in await refusal(fetcher, "http://public.test/")
    await fetcher.close()


async def test_an_ipv6_address_is_connected_to_by_itself() -> None:
    sent: list[tuple[str, str]] = []

    async def resolve(_host: str, _port: int) -> list[str]:
        return ["2606:4700:4700::1111", "8.8.8.8"]

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append((str(request.url), request.headers["host"]))
        return httpx.Response(404)

    fetcher = UrlFetcher(MediaLimits(), resolve, httpx.MockTransport(answer))
    for url in ("http://six.test:8080/a", "http://[2606:4700:4700::1111]/b"):
        assert "404" in await refusal(fetcher, url)
    assert sent == [
        ("http://[2606:4700:4700::1111]:8080/a", "six.test:8080"),
        ("http://[2606:4700:4700::1111]/b", "[2606:4700:4700::1111]"),
    ]
    await fetcher.close()


async def test_redirects_into_private_networks() -> None:
    """The first host is public; the one it redirects to is refused before anything is sent there."""
    sent: list[tuple[str, str, str]] = []

    async def resolve(host: str, _port: int) -> list[str]:
        return {"public.test": ["93.184.216.34"], "internal.test": ["10.0.0.1"]}[host]

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append((request.url.host, request.headers["host"], request.extensions["sni_hostname"]))
        return httpx.Response(302, headers={"location": "http://internal.test/secret"})

    fetcher = UrlFetcher(MediaLimits(), resolve, httpx.MockTransport(answer))
    assert "not public" in await refusal(fetcher, "https://public.test/a")
    assert sent == [("93.184.216.34", "public.test", "public.test")]
    await fetcher.close()


async def test_a_name_is_resolved_once_per_request(web: WebServer) -> None:
    """A second answer, as rebinding attacks give it, is never asked for."""
    asked: list[str] = []

    async def resolve(host: str, _port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["203.0.113.1"]

    fetcher = UrlFetcher(ALLOWED, resolve)
    assert await fetch(fetcher, web.url("/picture", "rebinding.test")) == picture()
    assert asked == ["rebinding.test"]
    assert web.requests == [f"rebinding.test:{web.port} /picture"]
    await fetcher.close()


async def test_a_redirect_to_the_same_name_is_resolved_and_checked_again() -> None:
    """The name was public when it was first asked for; now it leads inside."""
    answers = iter((["93.184.216.34"], ["10.0.0.1"]))
    sent: list[str] = []

    async def resolve(_host: str, _port: int) -> list[str]:
        return next(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request.url.host)
        return httpx.Response(302, headers={"location": "/again"})

    fetcher = UrlFetcher(MediaLimits(), resolve, httpx.MockTransport(answer))
    assert "not public" in await refusal(fetcher, "http://rebinding.test/a")
    assert sent == ["93.184.216.34"]
    await fetcher.close()


@pytest.mark.parametrize("found", [["93.184.216.34", "10.0.0.1"], ["::ffff:10.0.0.1"], ["fe80::1%eth0"], []])
async def test_every_address_of_a_name_must_be_public(found: list[str]) -> None:
    async def resolve(_host: str, _port: int) -> list[str]:
        return found

    fetcher = UrlFetcher(MediaLimits(), resolve, httpx.MockTransport(lambda _request: httpx.Response(200)))
    assert "not public" in (said := await refusal(fetcher, "http://some.test/")) or "not resolve" in said
    await fetcher.close()


async def test_a_certificate_holds_for_the_name_that_was_asked_for() -> None:
    """Two names at one address: a connection to the one must not serve the other."""
    authority = trustme.CA()
    shown, trust = (ssl.SSLContext(kind) for kind in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT))
    authority.issue_cert("one.test").configure_cert(shown)
    authority.configure_trust(trust)

    async def resolve(_host: str, _port: int) -> list[str]:
        return ["127.0.0.1"]

    server = await asyncio.start_server(serve_on, "127.0.0.1", 0, ssl=shown)
    port = server.sockets[0].getsockname()[1]
    fetcher = UrlFetcher(ALLOWED, resolve, trust=trust)
    assert await fetch(fetcher, f"https://one.test:{port}/") == b"picture"
    assert "certificate" in await refusal(fetcher, f"https://other.test:{port}/")
    await fetcher.close()
    server.close()


async def serve_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """As many requests of one connection as come."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\npicture")
    writer.close()


async def test_redirected_schemes_are_checked(web: WebServer, fetcher: UrlFetcher) -> None:
    web.pages["/file"] = redirect("file:///etc/passwd")
    assert "scheme" in await refusal(fetcher, web.url("/file"))


async def test_bodies_are_not_decompressed(web: WebServer, fetcher: UrlFetcher) -> None:
    assert await fetch(fetcher, web.url("/gzip")) == picture()


async def test_a_redirect_to_nowhere(web: WebServer, fetcher: UrlFetcher) -> None:
    web.pages["/odd"] = page(b"", status="302 Found")
    await refusal(fetcher, web.url("/odd"))


def test_data_urls() -> None:
    encoded = base64.b64encode(b"\xff\x00x").decode()
    assert decode_data_url(f"data:image/png;base64,{encoded}", 100) == b"\xff\x00x"
    assert decode_data_url("data:,a%20b", 100) == b"a b"


@pytest.mark.parametrize(
    "url", ["data:image/png;base64", "data:;base64,###", "data:;base64,YQ", "data:," + "a" * 500]
)
def test_broken_data_urls(url: str) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        decode_data_url(url, 100)
    assert caught.value.field == "url"
