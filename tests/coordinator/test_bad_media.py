"""A request whose media fail ends alone and at once, with the part's place; others go on, nothing is held."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from coordinator.config import MediaLimits
from elasticmm.v1 import inference_pb2 as pb
from tests.coordinator.conftest import Bench, MakeBench, failure_of, picture
from tests.coordinator.media.conftest import WebServer, later, page, web

__all__ = ["web"]

LIMITS = {"media_bytes": 200_000, "allow_private_urls": True}


@pytest.fixture
async def open_bench(make_bench: MakeBench) -> Bench:
    return await make_bench("epd", gateway=True, media=MediaLimits(**LIMITS, url_timeout_s=60))


def about(*urls: str, request_id: str = "", tenant: str = "") -> pb.GenerateRequest:
    """Two messages; the pictures are in the second, after a text."""
    parts = [pb.Part(text="look"), *(pb.Part(image=pb.ImagePart(url=url)) for url in urls)]
    first = pb.Message(role="system", parts=[pb.Part(text="be brief")])
    messages = [first, pb.Message(role="user", parts=parts)]
    return pb.GenerateRequest(
        messages=messages, request_id=request_id, tenant=tenant, sampling=pb.SamplingParams(max_tokens=2)
    )


def place(index: int) -> str:
    return f"messages[1].parts[{index}].image.url"


async def assert_nothing_held(bench: Bench) -> None:
    assert bench.gateway is not None
    gateway = bench.gateway
    await bench.until(lambda: not gateway.resolver.num_waiting and not gateway.store.num_leases)
    await bench.assert_idle()


@pytest.mark.parametrize("path", ["/missing", "/text", "/truncated", "/endless", "/declared"])
async def test_one_bad_item_ends_the_work_on_the_good_ones(
    open_bench: Bench, web: WebServer, path: str
) -> None:
    web.pages["/truncated"] = page(picture()[:150])
    urls = [web.url("/hang"), web.url("/picture"), web.url(path), web.url("/hang?2")]
    web.pages["/hang?2"] = web.pages["/hang"]
    failure = await open_bench.fail(about(*urls))
    assert (failure.code, failure.field) == (grpc.StatusCode.INVALID_ARGUMENT, place(3))
    assert open_bench.gateway is not None
    assert not open_bench.stages[0].kinds().count("encode")
    await assert_nothing_held(open_bench)


async def test_a_page_that_never_comes(make_bench: MakeBench, web: WebServer) -> None:
    bench = await make_bench("epd", gateway=True, media=MediaLimits(**LIMITS, url_timeout_s=0.2))
    failure = await bench.fail(about(web.url("/picture"), web.url("/hang")))
    assert (failure.code, failure.field) == (grpc.StatusCode.INVALID_ARGUMENT, place(2))
    assert "took longer" in failure.message
    await assert_nothing_held(bench)


async def test_others_go_on_meanwhile(open_bench: Bench, web: WebServer) -> None:
    """The one that waits is not disturbed by one that fails, and both are about the same pictures."""
    go_on = asyncio.Event()
    web.pages["/slow"] = later(go_on, web.pages["/picture"])
    assert open_bench.gateway is not None
    resolver = open_bench.gateway.resolver
    waiting = asyncio.create_task(open_bench.ask(about(web.url("/slow"))))
    await open_bench.until(lambda: resolver.num_waiting == 1)
    failure = await open_bench.fail(about(web.url("/slow"), web.url("/missing")))
    assert failure.field == place(2)
    await open_bench.until(lambda: resolver.num_waiting == 1)
    assert not waiting.done()
    go_on.set()
    assert (await waiting).finished.usage.media_tokens
    await assert_nothing_held(open_bench)


async def test_twenty_requests_for_one_url_fetch_it_once(open_bench: Bench, web: WebServer) -> None:
    go_on = asyncio.Event()
    web.pages["/slow"] = later(go_on, web.pages["/picture"])
    assert open_bench.gateway is not None
    resolver = open_bench.gateway.resolver
    asks = [asyncio.create_task(open_bench.ask(about(web.url("/slow")))) for _ in range(20)]
    await open_bench.until(lambda: resolver.num_waiting == 20)
    other = asyncio.create_task(open_bench.ask(about(web.url("/slow"), tenant="other")))
    await open_bench.until(lambda: resolver.num_waiting == 21)
    go_on.set()
    answers = await asyncio.gather(*asks, other)
    assert len(web.requests) == 2  # the other tenant's own
    assert len({answer.finished.usage.SerializeToString() for answer in answers}) == 1
    await assert_nothing_held(open_bench)


async def test_a_failed_fetch_names_the_place_in_every_request(open_bench: Bench, web: WebServer) -> None:
    go_on = asyncio.Event()
    web.pages["/slow"] = later(go_on, web.pages["/missing"])
    assert open_bench.gateway is not None
    resolver = open_bench.gateway.resolver
    before = [[], [web.url("/picture")], [web.url("/picture")] * 2]
    asks = [asyncio.create_task(open_bench.ask(about(*urls, web.url("/slow")))) for urls in before]
    await open_bench.until(lambda: resolver.num_waiting == 3)
    go_on.set()
    failures = await asyncio.gather(*asks, return_exceptions=True)
    assert all(isinstance(each, grpc.aio.AioRpcError) for each in failures)
    fields = [failure_of(each).field for each in failures if isinstance(each, grpc.aio.AioRpcError)]
    assert fields == [place(1), place(2), place(3)]
    await assert_nothing_held(open_bench)


async def test_a_deadline_is_that_of_its_own_request(open_bench: Bench, web: WebServer) -> None:
    go_on = asyncio.Event()
    web.pages["/slow"] = later(go_on, web.pages["/picture"])
    hasty = about(web.url("/slow"))
    hasty.deadline.FromMilliseconds(100)
    assert open_bench.gateway is not None
    resolver = open_bench.gateway.resolver
    patient = asyncio.create_task(open_bench.ask(about(web.url("/slow"))))
    await open_bench.until(lambda: resolver.num_waiting == 1)
    failure = await open_bench.fail(hasty)
    assert failure.code is grpc.StatusCode.DEADLINE_EXCEEDED
    go_on.set()
    assert (await patient).finished.usage.media_tokens
    assert len(web.requests) == 1
    await assert_nothing_held(open_bench)
