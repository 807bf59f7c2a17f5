"""gRPC's listeners are seen to be full."""

from __future__ import annotations

import socket

import pytest

from coordinator.listening import connections as connections_file
from coordinator.listening.connections import GrpcConnections, established
from coordinator.listening.crowd import Crowd
from elasticmm.v1 import inference_pb2 as pb
from tests.coordinator.conftest import MakeBench, until


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_established_ones_are_counted_by_the_port_that_they_came_to(
    family: socket.AddressFamily, host: str
) -> None:
    with socket.socket(family) as listening, socket.socket(family) as first, socket.socket(family) as second:
        listening.bind((host, 0))
        listening.listen()
        address = listening.getsockname()
        assert established()[address[1]] == 0
        first.connect(address)
        second.connect(address)
        assert established()[address[1]] == 2
        assert established()[first.getsockname()[1]] == 1  # the other end, which is here too


def test_a_port_that_comes_to_be_full_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    grpc_, media = (Crowd(name, 3, "max_connections", knows_refused=False) for name in ("grpc", "media"))
    gateway: list[int | None] = [None]
    watched = GrpcConnections({grpc_: lambda: 50, media: lambda: gateway[0]})
    for found in ({50: 2, 60: 9}, {50: 3}, {50: 4}, {50: 1}):
        watched.note(found)
    assert (grpc_.num_inside, media.num_inside) == (1, 0)
    assert [record.getMessage() for record in caplog.records] == [
        "grpc: 3, as many as may be (max_connections): gRPC closes further ones without a word"
    ]
    gateway[0] = 60
    watched.note({50: 3, 60: 9})
    assert media.num_inside == 9
    assert len(caplog.records) == 3


async def test_a_coordinator_tells_how_full_its_ports_are(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connections_file, "_INTERVAL_S", 0.01)
    bench = await make_bench(max_connections=1)
    await bench.inference.GetModel(pb.GetModelRequest())
    line = b'\nelasticmm:door_inside{door="grpc_connections"} 1.0\n'
    await until(lambda: line in bench.coordinator.watch.metrics.render()[1])
    _, metrics = bench.coordinator.watch.metrics.render()
    assert b'\nelasticmm:door_limit{door="grpc_connections"} 1.0\n' in metrics
    assert b'door_refused_total{door="grpc"}' in metrics
    assert b'door_refused_total{door="grpc_connections"}' not in metrics
    await until(lambda: "grpc_connections: 1, as many as may be" in caplog.text)
