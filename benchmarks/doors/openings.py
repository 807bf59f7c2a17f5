"""Clients that open many requests: to let them idle, or one after the other at a fixed rate."""

from __future__ import annotations

import selectors
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

import psutil

from benchmarks.doors.client import GENERATE, generate_request
from benchmarks.doors.http2 import GrpcConnection
from benchmarks.doors.pinning import cpu_s
from elasticmm.v1 import inference_pb2 as pb

_CONNECTIONS = 8
_LONGEST_S = 60.0


@dataclass(frozen=True, slots=True)
class IdleSpec:
    port: int
    server_pid: int
    num_streams: int


@dataclass(frozen=True, slots=True)
class AdmitSpec:
    port: int
    server_pid: int
    prompts: tuple[str, ...]  # one per request
    rate: float  # per second


@dataclass(slots=True)
class Admitted:
    seconds: float = 0.0  # from the first request to the last end
    server_cpu_s: float = 0.0
    client_cpu_s: float = 0.0
    prompt_tokens: int = 0
    accepted_s: list[float] = field(default_factory=list)  # after the moment each was due
    finished: int = 0
    refused: int = 0  # ended without Finished


class _Calls:
    """Calls over a few connections in turn."""

    def __init__(self, port: int) -> None:
        self._selector = selectors.DefaultSelector()
        self._connections = [GrpcConnection("127.0.0.1", port) for _ in range(_CONNECTIONS)]
        self._names: dict[tuple[GrpcConnection, int], int] = {}
        for connection in self._connections:
            self._selector.register(connection, selectors.EVENT_READ, connection)

    def open(self, request: bytes) -> None:
        number = len(self._names)
        connection = self._connections[number % _CONNECTIONS]
        self._names[connection, connection.call(GENERATE, request)] = number

    def read(self, timeout_s: float) -> Iterator[tuple[int, pb.GenerateEvent | None]]:
        """By number of the call what came of it; None at its end."""
        for key, _ in self._selector.select(max(0.0, timeout_s)):
            received = key.data.receive()
            for stream, message in received.messages:
                yield self._names[key.data, stream], pb.GenerateEvent.FromString(message)
            for stream in received.ended:
                yield self._names[key.data, stream], None

    def close(self) -> None:
        for connection in self._connections:
            connection.close()


def idle(spec: IdleSpec, pipe: Connection) -> None:
    """A process: sends by how many bytes the server's memory grew with so many accepted streams open."""
    server = psutil.Process(spec.server_pid)
    before_bytes = server.memory_info().rss
    calls = _Calls(spec.port)
    for number in range(spec.num_streams):
        calls.open(generate_request(f"idle-{number}", "hello", 2048))
    accepted: set[int] = set()
    until_s = time.monotonic() + _LONGEST_S
    while len(accepted) < spec.num_streams:
        for number, event in calls.read(1.0):
            if event is None:
                raise RuntimeError(f"stream {number} ended")
            accepted.add(number)
        if time.monotonic() > until_s:
            raise TimeoutError(f"only {len(accepted)} of {spec.num_streams} streams were accepted")
    pipe.send(server.memory_info().rss - before_bytes)
    calls.close()


def admit(spec: AdmitSpec, pipe: Connection) -> None:
    """A process: sends Admitted."""
    requests = [generate_request(f"admit-{i}", text, 1) for i, text in enumerate(spec.prompts)]
    calls, result = _Calls(spec.port), Admitted()
    start_s, ours_s, servers_s = time.monotonic(), time.process_time(), cpu_s(spec.server_pid)
    due_s = [start_s + number / spec.rate for number in range(len(requests))]
    opened, ended = 0, 0
    finished: defaultdict[int, bool] = defaultdict(bool)
    while ended < len(requests) and time.monotonic() < start_s + _LONGEST_S:
        while opened < len(requests) and due_s[opened] <= time.monotonic():
            calls.open(requests[opened])
            opened += 1
        next_s = due_s[opened] if opened < len(requests) else time.monotonic() + 1.0
        for number, event in calls.read(next_s - time.monotonic()):
            if event is None:
                ended += 1
            elif event.HasField("accepted"):
                result.accepted_s.append(time.monotonic() - due_s[number])
                result.prompt_tokens += event.accepted.prompt_tokens
            elif event.HasField("finished"):
                finished[number] = True
    result.seconds = time.monotonic() - start_s
    result.finished, result.refused = len(finished), len(requests) - len(finished)
    result.client_cpu_s = time.process_time() - ours_s
    result.server_cpu_s = cpu_s(spec.server_pid) - servers_s
    pipe.send(result)
    calls.close()
