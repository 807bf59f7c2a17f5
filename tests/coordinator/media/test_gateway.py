"""The gateway over real gRPC: uploads, leases, pulls, and who may do what."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from coordinator.config import MediaLimits
from coordinator.media.gateway import MEDIA_SERVICE, ServingGateway, serving
from coordinator.media.settings import GatewaySettings, parse_settings
from core.access import token_metadata
from elasticmm.v1 import inference_pb2, inference_pb2_grpc
from elasticmm.v1 import media_store_pb2 as pb
from elasticmm.v1 import media_store_pb2_grpc as pb_grpc
from tests.coordinator.conftest import TOKEN, Failure, failure_of, picture, until
from tests.coordinator.media.conftest import WebServer, later

METADATA = token_metadata(TOKEN)


def settings(**limits: object) -> GatewaySettings:
    return GatewaySettings(TOKEN, "127.0.0.1", 0, "127.0.0.1", 32 << 20, MediaLimits(**limits))


def content(item: pb.MediaItem) -> bytes | None:
    """As an encoder on this host reads it; None where the segment is gone."""
    path = Path(item.segment)
    return path.read_bytes() if path.exists() else None


@dataclass
class Gateway:
    serves: ServingGateway
    channel: grpc.aio.Channel
    media: inference_pb2_grpc.MediaStub
    store: pb_grpc.MediaStoreStub

    async def upload(
        self, data: bytes, piece_bytes: int = 1 << 16, tenant: str = ""
    ) -> inference_pb2.UploadResponse:
        starts = range(0, len(data), piece_bytes)
        pieces = [inference_pb2.UploadRequest(data=data[start : start + piece_bytes]) for start in starts]
        for first in pieces[:1]:
            first.tenant = tenant
        return await self.media.Upload(iter(pieces))

    async def resolve(self, request_id: str = "r", **source: object) -> pb.MediaItem:
        request = pb.ResolveRequest(request_id=request_id, **source)
        return (await self.store.Resolve(request, metadata=METADATA)).item

    async def release(self, request_id: str = "r") -> None:
        await self.store.Release(pb.ReleaseRequest(request_id=request_id), metadata=METADATA)

    async def refusal(self, **source: object) -> Failure:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.resolve(**source)
        return failure_of(caught.value)


@asynccontextmanager
async def gateway_with(**limits: object) -> AsyncIterator[Gateway]:
    async with (
        serving(settings(**limits)) as serves,
        grpc.aio.insecure_channel(f"127.0.0.1:{serves.port}") as channel,
    ):
        yield Gateway(serves, channel, inference_pb2_grpc.MediaStub(channel), pb_grpc.MediaStoreStub(channel))


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with gateway_with(allow_private_urls=True, media_bytes=100_000) as gateway:
        yield gateway


async def test_upload_then_resolve_and_pull(gateway: Gateway) -> None:
    data = picture("PNG", (300, 200))
    uploaded = await gateway.upload(data, piece_bytes=1000)
    assert uploaded.digest == hashlib.sha256(data).digest()
    assert (uploaded.width, uploaded.height, uploaded.media_type) == (300, 200, "image/png")
    item = await gateway.resolve(digest=uploaded.digest)
    assert (item.digest, item.size_bytes, item.width) == (uploaded.digest, len(data), 300)
    assert content(item) == data
    pulled = gateway.store.Pull(pb.PullRequest(digest=item.digest), metadata=METADATA)
    assert b"".join([piece.data async for piece in pulled]) == data


async def test_inline_bytes_url_and_data_url_are_one_item(gateway: Gateway, web: WebServer) -> None:
    import base64

    encoded = base64.b64encode(picture()).decode()
    sources = [{"data": picture()}, {"url": web.url("/picture")}, {"url": f"data:image/png;base64,{encoded}"}]
    items = [await gateway.resolve(**source) for source in sources]
    assert len({item.segment for item in items}) == 1


async def test_a_url_wanted_by_many_is_fetched_once(gateway: Gateway, web: WebServer) -> None:
    everyone_waits = asyncio.Event()
    web.pages["/slow"] = later(everyone_waits, web.pages["/picture"])
    calls = [asyncio.create_task(gateway.resolve(f"r{n}", url=web.url("/slow"))) for n in range(5)]
    await until(lambda: gateway.serves.resolver.num_waiting == 5)
    everyone_waits.set()
    items = await asyncio.gather(*calls)
    assert len({item.segment for item in items}) == 1
    assert gateway.serves.store.num_leases == 5
    assert len(web.requests) == 1


async def test_tenants_fetch_a_url_each_for_itself(gateway: Gateway, web: WebServer) -> None:
    everyone_waits = asyncio.Event()
    web.pages["/slow"] = later(everyone_waits, web.pages["/picture"])
    wishes = [(f"{tenant}{n}", tenant) for tenant in ("a", "b") for n in range(3)]
    calls = [
        asyncio.create_task(gateway.resolve(request_id, tenant=tenant, url=web.url("/slow")))
        for request_id, tenant in wishes
    ]
    await until(lambda: gateway.serves.resolver.num_waiting == 6)
    everyone_waits.set()
    items = await asyncio.gather(*calls)
    assert len(web.requests) == 2
    assert len({item.segment for item in items[:3]}) == len({item.segment for item in items[3:]}) == 1
    assert items[0].segment != items[3].segment


async def test_a_failed_fetch_fails_all_who_wait(gateway: Gateway, web: WebServer) -> None:
    everyone_waits = asyncio.Event()
    web.pages["/slow"] = later(everyone_waits, web.pages["/missing"])
    calls = [asyncio.create_task(gateway.resolve(f"r{n}", url=web.url("/slow"))) for n in range(20)]
    await until(lambda: gateway.serves.resolver.num_waiting == 20)
    everyone_waits.set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert {failure_of(each).field for each in results if isinstance(each, grpc.aio.AioRpcError)} == {"url"}
    assert all(isinstance(each, grpc.aio.AioRpcError) for each in results)
    assert (len(web.requests), gateway.serves.store.num_bytes) == (1, 0)


async def test_one_request_that_wants_a_url_twice(gateway: Gateway, web: WebServer) -> None:
    """Each wish has a deadline of its own: the end of one is not that of the other."""
    go_on = asyncio.Event()
    web.pages["/slow"] = later(go_on, web.pages["/picture"])
    calls = [asyncio.create_task(gateway.resolve(url=web.url("/slow"))) for _ in range(2)]
    await until(lambda: gateway.serves.resolver.num_waiting == 2)
    calls[0].cancel()
    await until(lambda: gateway.serves.resolver.num_waiting == 1)
    go_on.set()
    assert (await calls[1]).width == 112


async def test_who_comes_after_the_last_gave_up_fetches_anew(gateway: Gateway, web: WebServer) -> None:
    call = asyncio.create_task(gateway.resolve("r0", url=web.url("/hang")))
    await until(lambda: web.requests)
    call.cancel()
    await until(lambda: not gateway.serves.resolver.num_waiting)
    web.pages["/hang"] = web.pages["/picture"]
    assert (await gateway.resolve("r1", url=web.url("/hang"))).width == 112
    assert (len(web.requests), gateway.serves.store.num_leases) == (2, 1)


async def test_another_tenants_upload_is_not_there(gateway: Gateway) -> None:
    digest = (await gateway.upload(picture(), tenant="a")).digest
    assert (await gateway.resolve(digest=digest, tenant="a")).width == 112
    never = b"\0" * 32
    failures = [
        await gateway.refusal(digest=named, tenant=tenant)
        for named, tenant in ((digest, "b"), (digest, ""), (never, "a"))
    ]
    assert {each.code for each in failures} == {grpc.StatusCode.NOT_FOUND}
    said = {each.message.replace(digest.hex()[:16], "").replace(never.hex()[:16], "") for each in failures}
    assert len(said) == 1


async def test_an_upload_without_a_tenant_is_the_default_ones(gateway: Gateway) -> None:
    digest = (await gateway.upload(picture())).digest
    assert (await gateway.resolve(digest=digest, tenant="default")).width == 112


async def test_a_tenants_name_is_limited(gateway: Gateway) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await gateway.upload(picture(), tenant="x" * 129)
    assert failure_of(caught.value).field == "tenant"


async def test_one_of_many_may_give_up(gateway: Gateway, web: WebServer) -> None:
    given_up = asyncio.Event()
    web.pages["/slow"] = later(given_up, web.pages["/picture"])
    calls = [asyncio.create_task(gateway.resolve(f"r{n}", url=web.url("/slow"))) for n in range(2)]
    await until(lambda: gateway.serves.resolver.num_waiting == 2)
    calls[0].cancel()
    await until(lambda: gateway.serves.resolver.num_waiting == 1)
    given_up.set()
    assert (await calls[1]).width == 112
    assert gateway.serves.store.num_leases == 1


async def test_nobody_waits_for_a_fetch_any_more(gateway: Gateway, web: WebServer) -> None:
    call = asyncio.create_task(gateway.resolve(url=web.url("/hang")))
    await until(lambda: web.requests)
    call.cancel()
    await until(lambda: not gateway.serves.resolver.num_waiting)
    assert not gateway.serves.store.num_bytes


@pytest.mark.parametrize(
    ("source", "code", "field"),
    [
        ({"digest": b"x" * 32}, "NOT_FOUND", "digest"),
        ({"data": b"not a picture"}, "INVALID_ARGUMENT", "data"),
        ({"data": picture()[:150]}, "INVALID_ARGUMENT", "data"),
        ({"data": bytes(200_000)}, "INVALID_ARGUMENT", "data"),
        ({"url": "data:image/png;base64,AAAA"}, "INVALID_ARGUMENT", "url"),
        ({"url": "http://no-such-host.invalid/"}, "INVALID_ARGUMENT", "url"),
        ({}, "INVALID_ARGUMENT", "source"),
    ],
)
async def test_refusals(gateway: Gateway, source: dict[str, object], code: str, field: str) -> None:
    failure = await gateway.refusal(**source)
    assert (failure.code.name, failure.field) == (code, field)


@pytest.mark.parametrize("path", ["/text", "/missing", "/endless", "/declared"])
async def test_urls_that_give_no_picture(gateway: Gateway, web: WebServer, path: str) -> None:
    failure = await gateway.refusal(url=web.url(path))
    assert (failure.code, failure.field) == (grpc.StatusCode.INVALID_ARGUMENT, "url")
    assert (await gateway.resolve(data=picture())).width == 112


async def test_uploads_are_limited(gateway: Gateway) -> None:
    for data, piece_bytes in ((bytes(200_000), 1 << 16), (bytes((1 << 20) + 1), 1 << 21), (b"", 1)):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await gateway.upload(data, piece_bytes)
        assert failure_of(caught.value).field == "data"


async def test_the_store_needs_the_token(gateway: Gateway) -> None:
    calls = (
        gateway.store.Resolve(pb.ResolveRequest(data=picture())),
        gateway.store.Release(pb.ReleaseRequest(), metadata=token_metadata("wrong")),
    )
    for call in calls:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in gateway.store.Pull(pb.PullRequest(digest=b"x")):
            pass
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_full_store_says_when_to_come_back() -> None:
    data = picture("BMP", (100, 100))
    async with gateway_with(store_bytes=int(len(data) * 1.5)) as gateway:
        await gateway.resolve(data=data)
        failure = await gateway.refusal(data=picture("BMP", (100, 101)))
        assert failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert failure.retry_after_s
        await gateway.release()
        assert (await gateway.resolve(data=picture("BMP", (100, 101)))).height == 101


async def test_nothing_is_left_behind() -> None:
    async with gateway_with() as gateway:
        item = await gateway.resolve(data=picture())
        assert content(item) == picture()
    assert content(item) is None


async def test_health(gateway: Gateway) -> None:
    health = health_pb2_grpc.HealthStub(gateway.channel)
    for service in ("", MEDIA_SERVICE):
        reply = await health.Check(health_pb2.HealthCheckRequest(service=service))
        assert reply.status == health_pb2.HealthCheckResponse.SERVING


def test_settings_travel() -> None:
    wanted = settings(media_ttl_s=3.5, allow_private_urls=True)
    assert parse_settings(wanted.to_line()) == wanted
