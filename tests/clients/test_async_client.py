import asyncio
from collections.abc import AsyncIterator

import pytest

from elasticmm_client import (
    AccessDenied,
    AsyncClient,
    Cancelled,
    DeadlineExceeded,
    Finished,
    InvalidRequest,
    NotRunning,
    user_message,
)
from tests.clients import fake_answers
from tests.clients.fake_cluster import TOKEN, FakeCluster


@pytest.fixture
async def async_client(cluster: FakeCluster) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(cluster.address, token=TOKEN) as client:
        yield client


async def test_streams_events(async_client: AsyncClient) -> None:
    events = [event async for event in async_client.generate("abc")]
    assert [event.text for event in events] == ["", "a", "b", "c", ""]
    assert isinstance(events[-1], Finished)


async def test_many_at_once(async_client: AsyncClient) -> None:
    results = await asyncio.gather(*(async_client.generate(f"n{i}").result() for i in range(20)))
    assert [result.text for result in results] == [f"n{i}" for i in range(20)]


async def test_uploads_pictures(async_client: AsyncClient, cluster: FakeCluster) -> None:
    text = await async_client.generate([user_message("x", b"one", b"two", b"one")]).text()
    assert text == "x###"
    assert sorted(cluster.uploads) == [b"one", b"two"]


async def test_uploads_a_picture_for_each_tenant(async_client: AsyncClient, cluster: FakeCluster) -> None:
    for tenant in ("a", "b", "a"):
        await async_client.generate([user_message("x", b"picture")], tenant=tenant).text()
    assert len(cluster.uploads) == 2


async def test_uploads_again_what_the_gateway_lost(async_client: AsyncClient, cluster: FakeCluster) -> None:
    await async_client.generate([user_message("x", b"picture")]).text()
    cluster.uploads.clear()
    assert await async_client.generate([user_message("x", b"picture")]).text() == "x#"
    assert cluster.uploads == [b"picture"]


async def test_errors_come_from_the_stream(async_client: AsyncClient) -> None:
    stream = async_client.generate([user_message("x", b"broken")])
    with pytest.raises(InvalidRequest) as caught:
        await stream.text()
    assert caught.value.field == "messages[0].parts[0].image"


async def test_cancel_while_waiting_ends_the_stream(async_client: AsyncClient, cluster: FakeCluster) -> None:
    cluster.answer = fake_answers.endless
    stream = async_client.generate("x")
    reader = asyncio.ensure_future(stream.text())
    assert await asyncio.to_thread(cluster.started.wait, 10)
    stream.cancel()
    assert set(await reader) <= {"x"}
    with pytest.raises(Cancelled):
        await stream.result()
    assert await asyncio.to_thread(cluster.ended.wait, 10)


async def test_a_cancelled_task_cancels_the_call(async_client: AsyncClient, cluster: FakeCluster) -> None:
    cluster.answer = fake_answers.endless
    task = asyncio.ensure_future(async_client.generate("x").text())
    assert await asyncio.to_thread(cluster.started.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(cluster.ended.wait, 10)


async def test_leaving_the_context_cancels(async_client: AsyncClient, cluster: FakeCluster) -> None:
    cluster.answer = fake_answers.endless
    async with async_client.generate("x") as stream:
        await anext(stream)
    assert await asyncio.to_thread(cluster.ended.wait, 10)


async def test_timeout(async_client: AsyncClient, cluster: FakeCluster) -> None:
    cluster.answer = fake_answers.endless
    with pytest.raises(DeadlineExceeded):
        await async_client.generate("x", timeout_s=0.1).text()


async def test_nobody_listening_is_not_running() -> None:
    async with AsyncClient("127.0.0.1:1") as client:
        with pytest.raises(NotRunning):
            await client.generate("x").text()


async def test_status_needs_the_token(async_client: AsyncClient, cluster: FakeCluster) -> None:
    assert (await async_client.status()).model == "echo"
    async with AsyncClient(cluster.address) as client:
        with pytest.raises(AccessDenied):
            await client.status()
