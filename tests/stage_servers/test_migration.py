"""Two instances in one process: a sequence moves, or stays exactly where it was, whatever fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace

import grpc
import pytest

from core.families import load_family
from core.ids import host_id
from core.sequence import SequenceSpec
from core.stages import COUPLED, ModalityGroup
from elasticmm.v1 import stage_control_pb2 as pb
from kv_transfer.errors import UnknownRequest
from kv_transfer.layout import PayloadKind
from kv_transfer.pool import Pool, embedding_layout, kv_layout
from kv_transfer.receiver import TransferReceiver
from kv_transfer.sender import PeerAddress, Sender
from kv_transfer.servicer import add_transfer_service
from stage_servers.engine.engine import Engine
from stage_servers.engine.loader import load_model
from stage_servers.engine.model import Model
from stage_servers.engine.records import EngineConfig, PrefillChunk, StepOutput
from stage_servers.instance import Instance
from stage_servers.migration import MigrationTimeouts
from tests.checkpoints import build_checkpoint
from tests.exactness import make_question, make_spec
from tests.stage_servers.engine.harness import Bench, answer_all

TOKEN = "a token for tests"
MAX_TOKENS = 600


@dataclass
class Part:
    """One instance, and what it reported."""

    instance: Instance
    engine: Engine
    kv: Pool
    receiver: TransferReceiver
    sender: Sender
    address: PeerAddress
    tokens: dict[tuple[str, int], list[tuple[int, int]]] = field(default_factory=dict)
    migrations: list[pb.MigrationReport] = field(default_factory=list)
    reported: list[str] = field(default_factory=list)  # kinds in order, "tokens" once in a row

    async def collect(self) -> None:
        while True:
            message = await self.instance.reports.next()
            kind = message.WhichOneof("message") or ""
            if kind == "migration":
                self.migrations.append(message.migration)
            if not (kind == "step" and self.reported[-1:] == ["step"]):
                self.reported.append(kind)
            for run in message.step.sequences:
                tokens = self.tokens.setdefault((run.request_id, run.attempt), [])
                tokens += enumerate(run.token_ids, run.first_index)

    def num_tokens(self, spec: SequenceSpec) -> int:
        return len(self.tokens.get(spec.key, ()))

    def assert_nothing_is_held(self) -> None:
        self.engine.check_integrity()
        self.receiver.check_integrity()
        assert not list(self.receiver.leases)
        assert self.sender.stats.in_flight == 0

    @property
    def is_free(self) -> bool:
        return self.kv.blocks.num_free == self.kv.num_blocks


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)


@asynccontextmanager
async def running(model: Model, name: str, *, kv_blocks: int, epoch: int) -> AsyncIterator[Part]:
    kv = Pool(
        kv_layout(
            model.fingerprint,
            model.dtype,
            num_layers=model.num_layers,
            num_heads=model.num_kv_heads,
            head_dim=model.head_dim,
            block_tokens=16,
        ),
        kv_blocks,
    )
    embeddings = Pool(embedding_layout(model.fingerprint, model.dtype, width=model.embedding_width), 8)
    sender = Sender(
        model_fingerprint=model.fingerprint,
        instance_id=name,
        host_id=host_id(),
        token=TOKEN,
        transports=["grpc"],
    )
    instance = Instance(
        model=model,
        kv=kv,
        embeddings=embeddings,
        sender=sender,
        token=TOKEN,
        roles=COUPLED,
        group=ModalityGroup.SHARED,
        media_workers=1,
    )
    instance.instance_id = name
    receiver = TransferReceiver(
        {PayloadKind.KV: kv, PayloadKind.EMBEDDING: embeddings},
        instance,
        epoch=epoch,
        host_id=host_id(),
        checksums=True,
    )
    engine = Engine(model, kv.tensor, kv.blocks, EngineConfig(), instance)
    await receiver.start()
    instance.start(engine, receiver, max_encode_tokens=64)
    server = grpc.aio.server()
    add_transfer_service(server, receiver, TOKEN)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    part = Part(
        instance, engine, kv, receiver, sender, PeerAddress(name, f"127.0.0.1:{port}", host_id(), epoch)
    )
    collecting = asyncio.create_task(part.collect())
    try:
        yield part
    finally:
        collecting.cancel()
        await instance.stop()
        await sender.close()
        await server.stop(None)
        await receiver.close()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model(build_checkpoint(tmp_path_factory.mktemp("model") / "first"))


@pytest.fixture(scope="module")
def expected(model: Model) -> list[int]:
    """The undisturbed answer to `ask`."""
    bench, spec = Bench(model), ask(model)
    answer_all(bench, [spec], [make_question(load_family(model.path), 4)])
    return bench.tokens[spec.key]


def ask(model: Model, attempt: int = 1) -> SequenceSpec:
    question = make_question(load_family(model.path), 4)
    spec = make_spec(load_family(model.path), question, "r", max_tokens=MAX_TOKENS, temperature=1.2, seed=7)
    return replace(spec, attempt=attempt)


@dataclass
class Two:
    """A source that decodes `spec`, and a target."""

    source: Part
    target: Part
    spec: SequenceSpec
    expected: list[int]

    @property
    def moved_spec(self) -> SequenceSpec:
        return replace(self.spec, attempt=2)

    def start(self) -> None:
        self.source.instance.prefill(self.spec, self.source.address)

    async def decoding(self, at_least: int = 5) -> None:
        await until(lambda: self.source.num_tokens(self.spec) >= at_least)

    def migrate(self, **changes: object) -> None:
        target = replace(self.target.address, **changes)  # type: ignore[arg-type]
        self.source.instance.migrate(self.spec.key, 2, target)

    async def report(self) -> pb.MigrationReport:
        await until(lambda: self.source.migrations)
        (report,) = self.source.migrations
        assert (report.request_id, report.attempt, report.new_attempt) == ("r", 1, 2)
        return report

    async def ended(self) -> None:
        await until(lambda: self.num_made == MAX_TOKENS)
        await until(lambda: self.source.is_free and self.target.is_free)
        self.source.assert_nothing_is_held()
        self.target.assert_nothing_is_held()

    @property
    def made(self) -> list[tuple[int, int]]:
        """(index, token) from both ends in the order of the coordinator's view."""
        return self.source.tokens[self.spec.key] + self.target.tokens.get(self.moved_spec.key, [])

    @property
    def num_made(self) -> int:
        return len(self.made)

    def assert_exact(self) -> None:
        """No token is lost, repeated or another."""
        assert self.made == list(enumerate(self.expected))


@pytest.fixture
async def two(model: Model, expected: list[int]) -> AsyncIterator[Two]:
    async with AsyncExitStack() as stack:
        source, target = [
            await stack.enter_async_context(running(model, name, kv_blocks=64, epoch=epoch))
            for epoch, name in enumerate(("source", "target"), 1)
        ]
        made = Two(source, target, ask(model), expected)
        made.start()
        yield made


def shorten(two: Two, **timeouts: float) -> None:
    two.source.instance._migration._timeouts = MigrationTimeouts(**timeouts)


async def test_it_moves(two: Two) -> None:
    await two.decoding()
    two.target.instance.decode(two.moved_spec)
    two.migrate()
    report = await two.report()
    assert report.has_moved
    assert report.transport == "grpc"
    assert report.pause_ns > 0
    await two.ended()
    two.assert_exact()
    num_here = two.source.num_tokens(two.spec)
    kept = len(two.spec.prompt) + num_here - 1
    assert report.size_bytes == kept * two.source.kv.layout.pool_bytes(1) // 16
    assert 5 <= num_here < MAX_TOKENS
    assert two.source.reported[-2:] == ["stage", "migration"]


async def test_it_comes_back(two: Two, model: Model) -> None:
    await two.decoding()
    two.target.instance.decode(two.moved_spec)
    two.migrate()
    assert (await two.report()).has_moved
    await until(lambda: two.target.num_tokens(two.moved_spec) > 3)
    again = ask(model, attempt=3)
    two.source.instance.decode(again)
    two.target.instance.migrate(two.moved_spec.key, 3, two.source.address)
    await until(lambda: two.target.migrations and two.source.num_tokens(again) and two.num_made)
    assert two.target.migrations[0].has_moved
    await until(lambda: two.num_made + two.source.num_tokens(again) == MAX_TOKENS)
    assert two.made + two.source.tokens[again.key] == list(enumerate(two.expected))
    await until(lambda: two.source.is_free and two.target.is_free)


async def stays(two: Two, reason: str) -> None:
    report = await two.report()
    assert not report.has_moved
    assert reason in report.reason
    two.target.instance.cancel_soon(two.moved_spec.key)  # as the coordinator does
    await two.ended()
    two.assert_exact()
    assert not two.target.tokens


async def test_no_room(two: Two) -> None:
    shorten(two, open_s=0.1)
    held = two.target.kv.blocks.allocate(63)
    await two.decoding(20)
    two.target.instance.decode(two.moved_spec)
    two.migrate()
    await two.report()
    two.target.kv.blocks.release(held)
    await stays(two, "no room within 0.1 s")


async def test_the_target_cannot_be_reached(two: Two) -> None:
    await two.decoding()
    two.migrate(endpoint="127.0.0.1:1")
    await stays(two, "UNAVAILABLE")


async def test_the_target_lives_another_life(two: Two) -> None:
    await two.decoding()
    two.target.instance.decode(two.moved_spec)
    two.migrate(epoch=99)
    await stays(two, "receiver_epoch")


async def test_the_target_was_told_to_forget_it(two: Two) -> None:
    await two.decoding()
    two.target.instance.decode(two.moved_spec)
    await two.target.instance.cancel(two.moved_spec.key)
    two.migrate()
    await stays(two, "has ended here")


async def test_the_commit_is_refused(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise UnknownRequest("gone since")

    monkeypatch.setattr(two.target.instance, "on_kv", refuse)
    await two.decoding()
    two.target.instance.decode(two.moved_spec)
    two.migrate()
    await stays(two, "gone since")
    # Tokens made after the sequence went on are told after the report.
    place = two.source.reported.index("migration")
    assert "step" in two.source.reported[place:]


async def test_the_commit_is_not_answered(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(two, commit_s=0.2)

    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(two.source.sender, "commit_lease", never)
    await two.decoding()
    two.target.instance.decode(two.moved_spec)
    two.migrate()
    await stays(two, "did not confirm within 0.2 s")


async def test_the_sequence_ends_meanwhile(two: Two) -> None:
    await two.decoding()
    two.migrate()  # waits for the target to know of it
    await until(lambda: two.source.num_tokens(two.spec) == MAX_TOKENS)
    two.target.instance.decode(two.moved_spec)
    await stays(two, "not here")


async def test_the_sequence_is_cancelled_meanwhile(two: Two) -> None:
    await two.decoding()
    two.migrate()
    await asyncio.sleep(0)
    await two.source.instance.cancel(two.spec.key)
    await two.target.instance.cancel(two.moved_spec.key)
    await until(lambda: two.source.is_free and two.target.is_free)
    assert not two.source.migrations
    two.source.assert_nothing_is_held()
    two.target.assert_nothing_is_held()


async def test_cancelled_while_it_stands_still(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = asyncio.Event()

    async def hang(*_: object) -> None:
        frozen.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(two.source.sender, "commit_lease", hang)
    await two.decoding()
    two.target.instance.decode(two.moved_spec)
    two.migrate()
    await asyncio.wait_for(frozen.wait(), 10)
    await two.source.instance.cancel(two.spec.key)
    await two.target.instance.cancel(two.moved_spec.key)
    await until(lambda: two.source.is_free and two.target.is_free)
    assert not two.source.migrations


async def test_what_does_not_decode_here(two: Two) -> None:
    two.source.instance.migrate(("nobody", 1), 2, two.target.address)
    await until(lambda: two.source.migrations)
    assert "not here" in two.source.migrations.pop().reason
    await two.decoding()
    await two.source.instance.cancel(two.spec.key)


async def test_a_second_order_for_the_same_sequence(two: Two) -> None:
    await two.decoding()
    two.migrate()
    two.source.instance.migrate(two.spec.key, 9, two.target.address)
    await until(lambda: two.source.migrations)
    second = two.source.migrations.pop()
    assert (second.new_attempt, second.has_moved) == (9, False)
    assert "already" in second.reason
    two.target.instance.decode(two.moved_spec)
    assert (await two.report()).has_moved
    await two.ended()
    two.assert_exact()


async def test_an_instance_tells_what_it_holds(two: Two) -> None:
    instance = two.target.instance
    await instance.check_idle()
    instance.decode(two.moved_spec)
    with pytest.raises(AssertionError, match="decoding"):
        await instance.check_idle()
    await instance.cancel(two.moved_spec.key)
    await instance.check_idle()


async def test_a_prefill_that_was_given_up_while_its_step_ran_leaves_nothing(two: Two) -> None:
    step = StepOutput(prefilled=(PrefillChunk(("given up", 1), 0, 8),))
    two.target.instance._step_done(step, 0)
    await two.target.instance.check_idle()
