"""URLs: what comes, what does not, and what must never be asked for."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator

import httpx
import pytest

from coordinator.config import MediaLimits
from coordinator.errors import InvalidFieldError
from coordinator.media.fetch import UrlFetcher, decode_data_url
from tests.coordinator.conftest import picture
from tests.coordinator.media.conftest import WebServer, page, redirect

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
        ("http://host:99999/", ""),
        ("http://" + "a" * 5000, "longer than"),
        ("http://no-such-host.invalid/x", "does not resolve"),
    ],
)
async def test_urls_that_are_none_of_ours(fetcher: UrlFetcher, url: str, reason: str) -> None:
    assert reason in await refusal(fetcher, url)


async def test_private_addresses_are_never_connected_to(web: WebServer) -> None:
    fetcher = UrlFetcher(MediaLimits())
    for host in ("127.0.0.1", "localhost", "127.1", "0x7f000001"):
        assert "not public" in await refusal(fetcher, web.url("/picture", host))
    assert not web.requests
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
