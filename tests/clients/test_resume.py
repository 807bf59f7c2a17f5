"""Both clients over a connection that breaks: a resumable answer arrives whole, each index once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from coordinator.access.keys import digest_of
from elasticmm_client import (
    Accepted,
    AsyncClient,
    Client,
    Event,
    InvalidRequest,
    NotRunning,
    ServerError,
    Tokens,
    Unavailable,
)
from elasticmm_client.resuming import Resumption
from tests.clients.cut_wire import CutWire
from tests.coordinator.conftest import Bench, MakeBench, make_bench
from tests.coordinator.fake_stage import fake_token

__all__ = ["make_bench"]

TOKENS = tuple(fake_token(1, index) for index in range(50))
KEEP_S = 100.0


@pytest.fixture
async def bench(make_bench: MakeBench) -> AsyncIterator[Bench]:
    bench = await make_bench("epd")
    yield bench
    bench.coordinator.answers.check_integrity()
    await bench.assert_idle()


@pytest.fixture
async def wire(bench: Bench) -> AsyncIterator[CutWire]:
    async with CutWire(bench.coordinator.port) as wire:
        yield wire


def ask(client: AsyncClient, **options: object):
    return client.generate("hi", max_tokens=50, seed=1, **{"resumable_s": KEEP_S, **options})  # type: ignore[arg-type]


def num_tokens(events: list[Event]) -> int:
    return sum(len(event.token_ids) for event in events if isinstance(event, Tokens))


async def paused(bench: Bench, stream: AsyncIterator[Event]) -> list[Event]:
    """Three tokens arrive, and the instance waits."""
    bench.stages[0].pause_at = 3
    events: list[Event] = []
    while num_tokens(events) < 3:
        events.append(await anext(stream))
    return events


async def test_async_goes_on_after_each_cut(bench: Bench, wire: CutWire) -> None:
    async with AsyncClient(wire.address) as client:
        stream = ask(client)
        events = await paused(bench, stream)
        wire.cut()
        bench.stages[0].resume()
        events += [event async for event in stream]
        result = await stream.result()
    assert result.token_ids == TOKENS
    assert sum(isinstance(event, Accepted) for event in events) == 1
    assert wire.num_connections == 2


async def test_sync_goes_on_after_each_cut(bench: Bench, wire: CutWire) -> None:
    bench.stages[0].pause_at = 3
    with Client(wire.address) as client:
        stream = client.generate("hi", max_tokens=50, seed=1, resumable_s=KEEP_S)
        events: list[Event] = []
        while num_tokens(events) < 3:
            events.append(await asyncio.to_thread(next, stream))
        wire.cut()
        bench.stages[0].resume()
        result = await asyncio.to_thread(stream.result)
    assert result.token_ids == TOKENS
    assert wire.num_connections == 2


async def test_the_first_call_is_cut_before_anything_came(bench: Bench, wire: CutWire) -> None:
    bench.stages[0].hold_first.clear()
    async with AsyncClient(wire.address) as client:
        stream = ask(client)
        assert isinstance(await anext(stream), Accepted)
        wire.cut()
        bench.stages[0].hold_first.set()
        assert (await stream.result()).token_ids == TOKENS


async def test_a_request_that_never_arrived_is_sent_again(bench: Bench, wire: CutWire) -> None:
    async with AsyncClient(wire.address) as client:
        await client.model()
        wire.swallows = True
        reading = asyncio.create_task(ask(client).result())
        await bench.until(lambda: wire.num_swallowed > 100)
        wire.swallows = False
        wire.cut()
        assert (await reading).token_ids == TOKENS


@pytest.mark.parametrize("stop", ["cancel", "context"])
async def test_cancel_stops_the_work(bench: Bench, wire: CutWire, stop: str) -> None:
    async with AsyncClient(wire.address) as client:
        async with ask(client) as stream:
            await paused(bench, stream)
            if stop == "cancel":
                stream.cancel()
                assert [event async for event in stream] == []
        assert not len(bench.coordinator.answers)
    bench.stages[0].resume()


async def test_sync_cancel_stops_the_work(bench: Bench) -> None:
    bench.stages[0].pause_at = 3
    with Client(bench.address) as client:
        stream = client.generate("hi", max_tokens=50, resumable_s=KEEP_S)
        await asyncio.to_thread(next, stream)
        await asyncio.to_thread(stream.cancel)
        assert not len(bench.coordinator.answers)
    bench.stages[0].resume()


async def test_another_client_goes_on(bench: Bench, wire: CutWire) -> None:
    async with AsyncClient(wire.address) as first, AsyncClient(bench.address) as second:
        stream = ask(first, request_id="mine", tenant="t")
        await paused(bench, stream)
        resumed = second.resume("mine", 2, tenant="t")
        assert isinstance(await anext(resumed), Accepted)
        with pytest.raises(ServerError) as caught:
            await anext(stream)
        assert caught.value.code == "ABORTED"
        bench.stages[0].resume()
        assert (await resumed.result()).token_ids == TOKENS[2:]
        with Client(bench.address) as third:
            again = await asyncio.to_thread(third.resume("mine", 48, tenant="t").result)
        assert again.token_ids == TOKENS[48:]


async def test_each_call_about_the_answer_shows_the_key(make_bench: MakeBench, tmp_path: Path) -> None:
    (tmp_path / "tenants.toml").write_text(f'[[tenants.a.keys]]\nsha256 = "{digest_of("mine")}"\n')
    bench: Bench = await make_bench("epd", tenants=tmp_path / "tenants.toml")
    async with CutWire(bench.coordinator.port) as wire:
        async with AsyncClient(wire.address, api_key="mine") as client:
            stream = ask(client, request_id="mine")
            await paused(bench, stream)
            wire.cut()
            bench.stages[0].resume()
            assert (await stream.result()).token_ids == TOKENS
            bench.stages[0].pause_at = 3
            async with ask(client, request_id="other") as left:
                await anext(left)
            assert len(bench.coordinator.answers) == 1  # the other was stopped
        with Client(wire.address, api_key="mine") as third:
            again = await asyncio.to_thread(third.resume("mine", 48).result)
        assert again.token_ids == TOKENS[48:]
    bench.stages[0].resume()


@pytest.mark.parametrize(("name", "index", "code"), [("other", 0, "NOT_FOUND"), ("mine", 51, "OUT_OF_RANGE")])
async def test_what_cannot_be_resumed(bench: Bench, name: str, index: int, code: str) -> None:
    async with AsyncClient(bench.address) as client:
        await ask(client, request_id="mine").result()
        with pytest.raises(InvalidRequest) as caught:
            await client.resume(name, index).result()
    assert caught.value.code == code


async def test_an_answer_that_is_gone_ends_with_the_loss(bench: Bench, wire: CutWire) -> None:
    async with AsyncClient(wire.address) as client:
        stream = ask(client, request_id="mine")
        await paused(bench, stream)
        wire.is_open = False
        wire.cut()
        reading = asyncio.create_task(stream.result())
        await bench.until(lambda: wire.num_connections > 1)
        bench.coordinator.answers.cancel("mine", "default")
        wire.is_open = True
        with pytest.raises(Unavailable):
            await reading
    bench.stages[0].resume()


async def test_without_it_a_cut_is_an_error(bench: Bench, wire: CutWire) -> None:
    async with AsyncClient(wire.address) as client:
        stream = ask(client, resumable_s=0)
        await paused(bench, stream)
        wire.cut()
        with pytest.raises(Unavailable):
            await stream.result()
    bench.stages[0].resume()


def test_nobody_there_is_told_at_once() -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(NotRunning):
        client.generate("hi", resumable_s=KEEP_S).text()


def test_a_loss_is_tried_again_with_growing_pauses_for_so_long() -> None:
    loss, resumption = lost(), Resumption(lambda _: None, lambda: None, 10.0)
    pauses = [resumption.pause_s(loss, 100.0, is_begun=True) for _ in range(20)]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (0.05, 2.0)
    with pytest.raises(Unavailable) as caught:
        resumption.pause_s(lost(), 110.5, is_begun=True)
    assert caught.value is loss
    resumption.note_event()
    assert resumption.pause_s(lost(), 111.0, is_begun=True) == 0.05


def lost() -> Unavailable:
    error = Unavailable("Socket closed", code="UNAVAILABLE")
    error.is_lost_call = True
    return error
