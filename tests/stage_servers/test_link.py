"""What the stream to the coordinator carries, and when."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from core.stages import COUPLED, Roles, Stage
from elasticmm.v1 import stage_control_pb2 as pb
from kv_transfer.stats import PairCounters
from stage_servers.link import CoordinatorLink
from stage_servers.reports import Reports
from stage_servers.wire import stage_number


@dataclass
class ToldInstance:
    """Only what heartbeats and reports are made of."""

    reports: Reports = field(default_factory=Reports)
    roles: Roles = COUPLED
    instance_id: str = ""

    def load(self) -> pb.Load:
        return pb.Load(leases=2, quarantined_blocks=3)

    def transfers(self) -> tuple[PairCounters, ...]:
        return (PairCounters("d-0", "shm", 4, 0, 1, 99, 0.5, {"TLS": 1}),)


def link_of(instance: ToldInstance) -> CoordinatorLink:
    """Registered already, with heartbeats each millisecond."""
    link = CoordinatorLink(instance, "127.0.0.1:1", "t", pb.Register())
    link._registered(pb.Registered(instance_id="p-0", heartbeat_interval_ms=1))
    return link


async def test_an_idle_instance_tells_its_load_and_transfers() -> None:
    messages = link_of(ToldInstance())._messages()
    assert (await anext(messages)).WhichOneof("message") == "register"
    heartbeat = (await anext(messages)).heartbeat
    sent = pb.TransferCounters(
        peer_instance_id="d-0",
        transport="shm",
        committed=4,
        in_flight=1,
        size_bytes=99,
        seconds=0.5,
        failures={"TLS": 1},
    )
    assert heartbeat == pb.Heartbeat(
        load=pb.Load(leases=2, quarantined_blocks=3),
        roles=[stage_number(stage) for stage in Stage],
        transfers=[sent],
    )
    await messages.aclose()


async def test_so_does_one_whose_reports_never_pause() -> None:
    instance = ToldInstance()
    messages = link_of(instance)._messages()
    num_steps, kind = 0, ""
    async with asyncio.timeout(10):
        while kind != "heartbeat":
            num_steps += kind == "step"
            instance.reports.send(pb.StageMessage(step=pb.StepReport()))
            kind = (await anext(messages)).WhichOneof("message")
    while num_steps < 1:  # and no report is lost over it
        num_steps += (await anext(messages)).WhichOneof("message") == "step"
    await messages.aclose()
