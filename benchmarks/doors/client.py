"""One client process with many streams; it counts and takes times, and does nothing else."""

from __future__ import annotations

import selectors
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Protocol

from benchmarks.doors.http2 import GrpcConnection
from benchmarks.doors.pinning import cpu_s
from benchmarks.doors.sse import SseStream
from benchmarks.doors.tokens import TEXT_LENGTH
from elasticmm.v1 import inference_pb2 as pb

GENERATE = "/elasticmm.v1.Inference/Generate"
_START_S = 60.0  # until all streams have their first token
_CONNECTIONS = 8


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """`door` is "grpc" or "http"; the processor time of `server_pid` and `front_pids` is read with ours."""

    door: str
    port: int
    server_pid: int
    request_ids: tuple[str, ...]
    warm_s: float
    window_s: float
    max_tokens: int
    front_pids: tuple[int, ...] = ()


@dataclass(slots=True)
class Window:
    """What came within the measured time, message by message."""

    seconds: float = 0.0
    client_cpu_s: float = 0.0
    server_cpu_s: float = 0.0
    front_cpu_s: float = 0.0
    streams: array[int] = field(default_factory=lambda: array("i"))  # index into request_ids
    first_index: array[int] = field(default_factory=lambda: array("i"))
    num_tokens: array[int] = field(default_factory=lambda: array("i"))
    at_s: array[float] = field(default_factory=lambda: array("d"))


class Streams(Protocol):
    """Many open streams of one door."""

    def read(self) -> list[tuple[int, int, int]]:
        """Of each message of tokens that came: stream, first index, number. Waits for some."""
        ...

    def close(self) -> None: ...


class GrpcStreams:
    """All calls over a few connections."""

    def __init__(self, spec: StreamSpec) -> None:
        self._selector = selectors.DefaultSelector()
        self._connections = [GrpcConnection("127.0.0.1", spec.port) for _ in range(_CONNECTIONS)]
        self._indices: dict[tuple[GrpcConnection, int], int] = {}
        for connection in self._connections:
            self._selector.register(connection, selectors.EVENT_READ)
        for index, request_id in enumerate(spec.request_ids):
            connection = self._connections[index % _CONNECTIONS]
            request = generate_request(request_id, "hello", spec.max_tokens)
            self._indices[connection, connection.call(GENERATE, request)] = index

    def read(self) -> list[tuple[int, int, int]]:
        found = []
        for key, _ in self._selector.select():
            connection: Any = key.fileobj
            received = connection.receive()
            if received.ended:
                raise RuntimeError(f"{len(received.ended)} streams ended while they were measured")
            for stream, message in received.messages:
                tokens = pb.GenerateEvent.FromString(message).tokens
                if count := len(tokens.token_ids):
                    found.append((self._indices[connection, stream], tokens.first_index, count))
        return found

    def close(self) -> None:
        for connection in self._connections:
            connection.close()


class SseStreams:
    """A connection per stream, as HTTP/1.1 has it."""

    def __init__(self, spec: StreamSpec) -> None:
        self._selector = selectors.DefaultSelector()
        self._streams = [
            SseStream("127.0.0.1", spec.port, chat_body(request_id, spec.max_tokens))
            for request_id in spec.request_ids
        ]
        self._next_index = [0] * len(self._streams)
        for index, stream in enumerate(self._streams):
            self._selector.register(stream, selectors.EVENT_READ, index)

    def read(self) -> list[tuple[int, int, int]]:
        found = []
        for key, _ in self._selector.select():
            stream: Any = key.fileobj
            for num_characters in stream.receive():
                if count := num_characters // TEXT_LENGTH:
                    found.append((key.data, self._next_index[key.data], count))
                    self._next_index[key.data] += count
            if stream.is_ended:
                raise RuntimeError("a stream ended while it was measured")
        return found

    def close(self) -> None:
        for stream in self._streams:
            stream.close()


def generate_request(request_id: str, text: str, max_tokens: int) -> bytes:
    return pb.GenerateRequest(
        request_id=request_id,
        messages=[pb.Message(role="user", parts=[pb.Part(text=text)])],
        sampling=pb.SamplingParams(max_tokens=max_tokens),
        stop=pb.StopConditions(ignore_eos=True),
    ).SerializeToString()


def chat_body(request_id: str, max_tokens: int) -> dict[str, object]:
    return {
        "messages": [{"role": "user", "content": "hello"}],
        "max_completion_tokens": max_tokens,
        "stream": True,
        "ignore_eos": True,
        "request_id": request_id,
    }


def run(spec: StreamSpec, pipe: Connection) -> None:
    """A process: sends the Window, and ends."""
    streams: Streams = (GrpcStreams if spec.door == "grpc" else SseStreams)(spec)
    try:
        _await_all(streams, len(spec.request_ids))
        warm_until_s = time.monotonic() + spec.warm_s
        while time.monotonic() < warm_until_s:
            streams.read()
        pipe.send(_measure(streams, spec))
    finally:
        streams.close()


def _await_all(streams: Streams, num_streams: int) -> None:
    begun: set[int] = set()
    until_s = time.monotonic() + _START_S
    while len(begun) < num_streams:
        begun.update(stream for stream, _, _ in streams.read())
        if time.monotonic() > until_s:
            raise TimeoutError(f"only {len(begun)} of {num_streams} streams have a token")


def _measure(streams: Streams, spec: StreamSpec) -> Window:
    window = Window()
    start_s, ours_s, servers_s = time.monotonic(), time.process_time(), cpu_s(spec.server_pid)
    front_s = sum(map(cpu_s, spec.front_pids))
    while (now_s := time.monotonic()) < start_s + spec.window_s:
        found = streams.read()
        now_s = time.monotonic()
        for stream, first_index, count in found:
            window.streams.append(stream)
            window.first_index.append(first_index)
            window.num_tokens.append(count)
            window.at_s.append(now_s)
    window.seconds = now_s - start_s
    window.client_cpu_s = time.process_time() - ours_s
    window.server_cpu_s = cpu_s(spec.server_pid) - servers_s
    window.front_cpu_s = sum(map(cpu_s, spec.front_pids)) - front_s
    return window


def names(prefix: str, count: int) -> Sequence[str]:
    return tuple(f"{prefix}-{index}" for index in range(count))
