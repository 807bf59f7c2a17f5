"""Clients that read slowly hold what their own answer has at most, and hold up nobody."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import defaultdict

import grpc
import pytest

from coordinator.events import MOST_EVENT_TOKENS
from elasticmm.v1 import inference_pb2 as pb
from tests.coordinator.conftest import Bench, MakeBench, ask_for

_NUM_SLOW = 4
_NUM_TOKENS = 1500
SMALL_WINDOW = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65535))


async def wait_until_all_is_made(bench: Bench) -> None:
    made = bench.stages[0].made
    await bench.until(lambda: sum(index >= _NUM_TOKENS for index in made.values()) == _NUM_SLOW)


def num_open(bench: Bench) -> int:
    return bench.coordinator.door.num_open


async def assert_others_are_served(bench: Bench) -> None:
    """All their tokens, while every slow reader is still open."""
    answers = await asyncio.gather(*(bench.ask(max_tokens=40, seed=n) for n in range(4)))
    assert [len(answer.token_ids) for answer in answers] == [40] * 4
    await bench.until(lambda: num_open(bench) <= _NUM_SLOW)
    assert num_open(bench) == _NUM_SLOW


async def test_over_grpc(make_bench: MakeBench) -> None:
    bench = await make_bench("epd")
    async with grpc.aio.insecure_channel(bench.address, options=SMALL_WINDOW) as channel:
        stub = type(bench.inference)(channel)
        request = ask_for(max_tokens=_NUM_TOKENS, logprobs=20, seed=1)
        calls = [aiter(stub.Generate(request)) for _ in range(_NUM_SLOW)]
        for call in calls:
            assert (await anext(call)).HasField("accepted")
        await wait_until_all_is_made(bench)
        await assert_others_are_served(bench)
        for call in calls:
            events = [event async for event in call]
            assert num_tokens(events) == _NUM_TOKENS
            assert max(len(event.tokens.token_ids) for event in events) == MOST_EVENT_TOKENS, (
                "nothing was merged"
            )
    await bench.assert_idle()


def num_tokens(events: list[pb.GenerateEvent]) -> int:
    """Each index once."""
    next_index = 0
    for event in events:
        if event.HasField("tokens"):
            assert event.tokens.first_index == next_index
            next_index += len(event.tokens.token_ids)
    return next_index


async def test_over_http(make_bench: MakeBench) -> None:
    """One connection with several answers, as the kernel's buffers take megabytes."""
    bench = await make_bench("epd", http_port=0)
    asked = {
        "messages": [{"role": "user", "content": "x"}],
        "stream": True,
        "n": _NUM_SLOW,
        "max_tokens": _NUM_TOKENS,
        "logprobs": True,
        "top_logprobs": 20,
        "seed": 1,
    }
    slow = await ask_by_hand(bench, asked)
    await wait_until_all_is_made(bench)
    await assert_others_are_served(bench)
    texts = texts_of(await read_all(slow))
    assert [len(text) for text in texts.values()] == [_NUM_TOKENS] * _NUM_SLOW
    await bench.assert_idle()


async def ask_by_hand(bench: Bench, asked: dict[str, object]) -> socket.socket:
    """On a socket that takes little."""
    host, port = bench.http_url.removeprefix("http://").split(":")
    body = json.dumps(asked).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.0\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(made, (host, int(port)))
    await loop.sock_sendall(made, head.encode() + body)
    return made


async def read_all(one: socket.socket) -> bytes:
    data = b""
    with one:
        while piece := await asyncio.get_running_loop().sock_recv(one, 65536):
            data += piece
    return data


def texts_of(data: bytes) -> dict[int, str]:
    """Of a whole stream, by choice."""
    events = [line[6:] for line in data.decode().splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    texts: dict[int, str] = defaultdict(str)
    for choice in (json.loads(event)["choices"][0] for event in events[:-1]):
        texts[choice["index"]] += choice["delta"].get("content") or ""
    return texts


async def test_who_goes_in_the_midst_of_a_write_is_no_fault(
    make_bench: MakeBench, caplog: pytest.LogCaptureFixture
) -> None:
    bench = await make_bench("epd")
    async with grpc.aio.insecure_channel(bench.address, options=SMALL_WINDOW) as channel:
        calls = [
            type(bench.inference)(channel).Generate(ask_for(max_tokens=_NUM_TOKENS, logprobs=20))
            for _ in range(_NUM_SLOW)
        ]
        for call in calls:
            await call.read()
        await wait_until_all_is_made(bench)
    await bench.until(lambda: not num_open(bench))
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    await bench.assert_idle()
