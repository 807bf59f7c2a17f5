"""What the stream to the coordinator carries, and when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from core.sequence import SequenceSpec
from core.stages import COUPLED, ModalityGroup, Roles, Stage
from core.tls import add_port
from elasticmm.v1 import stage_control_pb2 as pb
from elasticmm.v1 import stage_control_pb2_grpc as pb_grpc
from kv_transfer.layout import PayloadKind
from kv_transfer.sender import PeerAddress
from kv_transfer.stats import PairCounters
from stage_servers import link as link_module
from stage_servers.cache.reports import CacheReports
from stage_servers.link import CoordinatorLink
from stage_servers.reports import Reports
from stage_servers.wire import stage_number
from tests.certificates import Authority


@dataclass
class ToldCaches:
    """What caches are told."""

    flushed: list[tuple[str | None, PayloadKind | None]] = field(default_factory=list)
    shares: dict[str, float] = field(default_factory=dict)

    def flush(self, tenant: str | None, pool: PayloadKind | None) -> None:
        self.flushed.append((tenant, pool))

    def expire(self) -> None:
        """Nothing is kept."""

    def set_shares(self, parts: dict[str, float]) -> None:
        self.shares = parts


@dataclass
class ToldInstance:
    """Only what heartbeats and reports are made of."""

    reports: Reports = field(default_factory=Reports)
    roles: Roles = COUPLED
    group: ModalityGroup = ModalityGroup.TEXT
    instance_id: str = ""
    tpot_s: float | None = None

    prefills: list[tuple[str, str, int, PeerAddress | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.caches = CacheReports(self.reports)
        self.cache_control = ToldCaches()

    async def drop_all(self) -> None:
        """It holds nothing."""

    def aim_for(self, tpot_s: float) -> None:
        self.tpot_s = tpot_s

    def prefill(
        self, spec: SequenceSpec, decode: PeerAddress, prefix_tokens: int, holder: PeerAddress | None
    ) -> None:
        self.prefills.append((spec.request_id, decode.instance_id, prefix_tokens, holder))

    def load(self) -> pb.Load:
        return pb.Load(leases=2, quarantined_blocks=3)

    def transfers(self) -> tuple[PairCounters, ...]:
        return (PairCounters("d-0", "shm", 4, 0, 1, 99, 0.5, {"TLS": 1}),)


def link_of(instance: ToldInstance) -> CoordinatorLink:
    """Registered already, with heartbeats each millisecond."""
    link = CoordinatorLink(instance, "127.0.0.1:1", "t", pb.Register())
    link._registered(pb.Registered(instance_id="p-0", heartbeat_interval_ms=1))
    return link


async def test_an_instance_hears_of_the_target_per_token() -> None:
    instance = ToldInstance()
    link = link_of(instance)
    assert instance.tpot_s == 0.0
    link._registered(pb.Registered(instance_id="p-0", tpot_target_us=30_000))
    assert instance.tpot_s == 0.03


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
        group=pb.MODALITY_GROUP_TEXT,
    )
    await messages.aclose()


async def test_so_does_one_whose_reports_never_pause() -> None:
    instance = ToldInstance()
    messages = link_of(instance)._messages()
    num_steps, kind = 0, ""
    async with asyncio.timeout(60):
        while kind != "heartbeat":
            num_steps += kind == "step"
            instance.reports.send(pb.StageMessage(step=pb.StepReport()))
            kind = (await anext(messages)).WhichOneof("message")
        while num_steps < 1:  # and no report is lost over it
            num_steps += (await anext(messages)).WhichOneof("message") == "step"
    await messages.aclose()


async def test_new_roles_are_taken_on_and_told_at_once() -> None:
    instance = ToldInstance()
    link = link_of(instance)
    command = pb.SetRolesCommand(roles=[stage_number(Stage.DECODE)], group=pb.MODALITY_GROUP_SHARED)
    link._obey(pb.CoordinatorMessage(set_roles=command))
    assert (instance.roles, instance.group) == (frozenset({Stage.DECODE}), ModalityGroup.SHARED)
    heartbeat = (await instance.reports.next()).heartbeat
    assert list(heartbeat.roles) == [stage_number(Stage.DECODE)]
    assert heartbeat.group == pb.MODALITY_GROUP_SHARED


async def test_a_prefill_may_name_who_has_its_prefix() -> None:
    instance = ToldInstance()
    link = link_of(instance)
    command = pb.PrefillCommand(sequence=pb.Sequence(request_id="r"), decode=pb.Peer(instance_id="d-0"))
    link._obey(pb.CoordinatorMessage(prefill=command))
    command.prefix.CopyFrom(pb.Peer(instance_id="a-0", endpoint="127.0.0.1:2", host_id="host", epoch=9))
    command.prefix_tokens = 48
    link._obey(pb.CoordinatorMessage(prefill=command))
    holder = PeerAddress("a-0", "127.0.0.1:2", "host", 9)
    assert instance.prefills == [("r", "d-0", 0, None), ("r", "d-0", 48, holder)]


async def test_it_registers_again_with_what_it_plays_by_then() -> None:
    instance = ToldInstance(roles=frozenset({Stage.ENCODE}))
    link = CoordinatorLink(instance, "127.0.0.1:1", "t", pb.Register(roles=[stage_number(Stage.DECODE)]))
    messages = link._messages()
    register = (await anext(messages)).register
    assert list(register.roles) == [stage_number(Stage.ENCODE)]
    assert register.group == pb.MODALITY_GROUP_TEXT
    await messages.aclose()


class Forgetful(pb_grpc.StageControlServicer):
    """A coordinator that gives an instance up once, as one that was silent; then it listens."""

    def __init__(self) -> None:
        self.num_attached = 0
        self.heard: list[pb.StageMessage] = []

    async def Attach(
        self, requests: AsyncIterator[pb.StageMessage], context: grpc.aio.ServicerContext
    ) -> None:
        assert (await anext(requests)).WhichOneof("message") == "register"
        registered = pb.Registered(instance_id="p-0", heartbeat_interval_ms=60_000)
        await context.write(pb.CoordinatorMessage(registered=registered))
        self.num_attached += 1
        if self.num_attached == 1:
            return
        async for message in requests:
            self.heard.append(message)


@pytest.mark.parametrize("is_encrypted", [False, True])
async def test_a_stream_that_ended_takes_no_report_of_the_next(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_encrypted: bool
) -> None:
    tls = Authority(tmp_path).issue() if is_encrypted else None
    monkeypatch.setattr(link_module, "_RETRY_S", 0.01)
    coordinator, instance = Forgetful(), ToldInstance()
    server = grpc.aio.server()
    pb_grpc.add_StageControlServicer_to_server(coordinator, server)
    port = add_port(server, "127.0.0.1:0", tls)
    await server.start()
    link = CoordinatorLink(instance, f"127.0.0.1:{port}", "t", pb.Register(instance_id="p-0"), tls)
    running = asyncio.create_task(link.run())
    async with asyncio.timeout(60):
        while not (coordinator.num_attached == 2 and link.attached.is_set()):
            await asyncio.sleep(0.002)
        wanted = [pb.StageMessage(stage=pb.StageReport(item_index=index)) for index in range(3)]
        for message in wanted:
            instance.reports.send(message)
        while len(coordinator.heard) < len(wanted):
            await asyncio.sleep(0.002)
    assert coordinator.heard == wanted
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await server.stop(None)


@pytest.mark.parametrize(
    ("command", "flushed"),
    [
        (pb.FlushCacheCommand(), (None, None)),
        (pb.FlushCacheCommand(tenant="t", pool=pb.CACHE_POOL_KV), ("t", PayloadKind.KV)),
        (pb.FlushCacheCommand(pool=pb.CACHE_POOL_EMBEDDING), (None, PayloadKind.EMBEDDING)),
    ],
)
async def test_caches_are_flushed_as_told(
    command: pb.FlushCacheCommand, flushed: tuple[str | None, PayloadKind | None]
) -> None:
    instance = ToldInstance()
    link_of(instance)._obey(pb.CoordinatorMessage(flush_cache=command))
    assert instance.cache_control.flushed == [flushed]


async def test_caches_are_told_of_tenants_shares() -> None:
    instance = ToldInstance()
    command = pb.SetCacheSharesCommand(shares={"t": 0.25})
    link_of(instance)._obey(pb.CoordinatorMessage(set_cache_shares=command))
    assert instance.cache_control.shares == {"t": 0.25}


async def test_heartbeats_carry_what_caches_counted_and_a_new_coordinator_hears_what_is_kept() -> None:
    instance, counters = ToldInstance(), pb.CacheCounters(pool=pb.CACHE_POOL_KV, entries=1)
    instance.caches.add_counters(lambda: counters)
    instance.caches.note([bytes(32)], [])
    link = link_of(instance)
    assert list(link._heartbeat().heartbeat.caches) == [counters]
    assert (await instance.reports.next()).cache == pb.CacheReport(stored=bytes(32))


async def test_a_coordinator_that_does_not_answer_is_waited_for_with_a_word(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(link_module, "_SILENCE_S", 0.01)
    link = CoordinatorLink(ToldInstance(), "127.0.0.1:1", "t", pb.Register())
    running = asyncio.create_task(link.run())
    while not caplog.messages:
        await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    (said,) = caplog.messages
    assert "waiting for the coordinator at 127.0.0.1:1" in said
