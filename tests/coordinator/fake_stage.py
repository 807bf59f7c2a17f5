"""A stage server without an engine: speaks StageControl over loopback and "generates" seeded tokens."""

from __future__ import annotations

import asyncio
import struct
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import grpc

from core.access import token_metadata
from elasticmm.v1 import inference_pb2, stage_control_pb2_grpc
from elasticmm.v1 import stage_control_pb2 as pb
from tests.coordinator.fake_cache import FakeCache

E, P, D = inference_pb2.STAGE_ENCODE, inference_pb2.STAGE_PREFILL, inference_pb2.STAGE_DECODE
STAGES = {"e": E, "p": P, "d": D}

Key = tuple[str, int]


def fake_token(seed: int, index: int) -> int:
    """Any id of ordinary text in the demo tokenizer, from seed and index only."""
    return 33 + (seed * 31 + index * 7) % 60


@dataclass
class World:
    """What the fake stages of one cluster hand over to each other."""

    encoded: dict[tuple[Key, int], asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))
    prefilled: dict[Key, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))
    moved: dict[Key, int] = field(default_factory=dict)  # by the target's key: the index it goes on with
    caches: dict[str, FakeCache] = field(default_factory=dict)  # by instance


class FakeStage:
    """Attach with `async with`; `jobs` are what it still works on."""

    def __init__(
        self,
        world: World,
        address: str,
        token: str,
        roles: str,
        *,
        fingerprint: str,
        name: str = "",
        blocks: int = 1000,
        block_tokens: int = 16,
        make_token: Callable[[int, int], int] = fake_token,
    ) -> None:
        self.world = world
        self.roles = roles
        self.name = name
        self.blocks = blocks
        self.cache = FakeCache(fingerprint, block_tokens)
        self.fingerprint = fingerprint
        self.dtype = "float32"
        self.epoch = time.time_ns() % 2**62
        self.make_token = make_token
        self.jobs: dict[tuple[Key, str], asyncio.Task[None]] = {}
        self.commands: list[pb.CoordinatorMessage] = []
        self.pause_at: int | None = None  # decoding waits for ever before this index
        self.hold_encode = asyncio.Event()  # pictures are encoded once this is set
        self.hold_encode.set()
        self.hold_first = asyncio.Event()  # prefill reports its token once this is set
        self.hold_first.set()
        self.hold_move = asyncio.Event()  # a sequence leaves once this is set
        self.hold_move.set()
        self.move_refusal = ""  # why sequences do not leave
        self.hold_report = asyncio.Event()  # a sequence that left is reported once this is set
        self.hold_report.set()
        self.made: dict[Key, int] = {}  # the index that comes next
        self.failure: Callable[[str, Key], pb.FailureReport | None] = _no_failure
        self.is_detached = False
        self.obeys = True  # answers when it is told what to play
        self._resumed = asyncio.Event()
        self._address = address
        self._token = token
        self._outbox: asyncio.Queue[pb.StageMessage] = asyncio.Queue()

    async def __aenter__(self) -> FakeStage:
        self._channel = grpc.aio.insecure_channel(self._address)
        stub = stage_control_pb2_grpc.StageControlStub(self._channel)
        self._call = stub.Attach(metadata=token_metadata(self._token))
        await self._call.write(pb.StageMessage(register=self._register()))
        registered = await self._call.read()
        assert registered.WhichOneof("message") == "registered"
        self.registered = registered.registered
        self.name = self.registered.instance_id
        self.world.caches[self.name] = self.cache
        self._tasks = [asyncio.create_task(self._send()), asyncio.create_task(self._receive())]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.crash()

    async def crash(self) -> None:
        """Gone without a word, with all it held."""
        for task in (*self._tasks, *self.jobs.values()):
            task.cancel()
        self._call.cancel()
        await self._channel.close()
        await asyncio.gather(*self._tasks, *self.jobs.values(), return_exceptions=True)

    def report(self, message: pb.StageMessage) -> None:
        self._outbox.put_nowait(message)

    def _set_roles(self, command: pb.SetRolesCommand) -> None:
        if self.obeys:
            self.report(pb.StageMessage(heartbeat=pb.Heartbeat(roles=command.roles, group=command.group)))

    def resume(self) -> None:
        """What paused goes on."""
        self.pause_at = None
        self._resumed.set()

    def kinds(self) -> list[str]:
        return [command.WhichOneof("message") or "" for command in self.commands]

    def _register(self) -> pb.Register:
        return pb.Register(
            instance_id=self.name,
            epoch=self.epoch,
            roles=[STAGES[letter] for letter in self.roles],
            group=pb.MODALITY_GROUP_SHARED,
            endpoint="127.0.0.1:1",
            host_id="here",
            model_fingerprint=self.fingerprint,
            dtype=self.dtype,
            block_tokens=self.cache.block_tokens,
            total_kv_blocks=self.blocks,
        )

    async def _send(self) -> None:
        while True:
            await self._call.write(await self._outbox.get())

    async def _receive(self) -> None:
        while (command := await self._call.read()) is not grpc.aio.EOF:
            self.commands.append(command)
            self._obey(command)
        self.is_detached = True

    def _obey(self, command: pb.CoordinatorMessage) -> None:
        match command.WhichOneof("message"):
            case "set_roles":
                self._set_roles(command.set_roles)
            case "encode":
                self._start("encode", _key(command.encode), self._encode(command.encode))
            case "prefill":
                self._start("prefill", _key(command.prefill.sequence), self._prefill(command.prefill))
            case "decode":
                self._start("decode", _key(command.decode.sequence), self._decode(command.decode.sequence))
            case "migrate":
                key = (command.migrate.request_id, command.migrate.attempt)
                self._start("migrate", key, self._migrate(command.migrate))
            case "cancel":
                for job in [job for job in self.jobs if job[0] == _key(command.cancel)]:
                    self.jobs[job].cancel()

    def _start(self, kind: str, key: Key, work: AsyncIterator[pb.StageMessage]) -> None:
        job = (key, f"{kind}{len(self.commands)}")
        self.jobs[job] = asyncio.create_task(self._work(kind, key, work))
        self.jobs[job].add_done_callback(lambda _: self.jobs.pop(job, None))

    async def _work(self, kind: str, key: Key, work: AsyncIterator[pb.StageMessage]) -> None:
        if (failure := self.failure(kind, key)) is not None:
            self._outbox.put_nowait(pb.StageMessage(failure=failure))
            return
        async for message in work:
            self._outbox.put_nowait(message)

    async def _encode(self, command: pb.EncodeCommand) -> AsyncIterator[pb.StageMessage]:
        assert command.media.segment
        assert command.span.num_tokens
        await self.hold_encode.wait()
        self.world.encoded[_key(command), command.item_index].set()
        cached_tokens = 0
        if command.HasField("cache"):
            key = self.cache.embedding_key(command)
            cached_tokens = command.span.num_tokens if key in self.cache.keys else 0
            yield self.cache.keep([key])
        yield _done(
            _key(command), E, item_index=command.item_index, transport="shm", cached_tokens=cached_tokens
        )

    async def _prefill(self, command: pb.PrefillCommand) -> AsyncIterator[pb.StageMessage]:
        sequence = command.sequence
        cached_tokens = self._cached_tokens(command)
        ends = {span.item_index: span.first_token + span.num_tokens for span in sequence.media}
        needed = [index for index, end in ends.items() if cached_tokens < end]
        unsent = [index for index in needed if ends[index] <= command.prefix_tokens]
        if unsent:
            need = pb.NeedReport(
                request_id=sequence.request_id, attempt=sequence.attempt, item_indices=unsent
            )
            yield pb.StageMessage(need=need)
        for index in needed:
            await self.world.encoded[_key(sequence), index].wait()
        first = len(sequence.output_token_ids)
        is_whole = command.decode.instance_id == self.name
        self.world.prefilled[_key(sequence)].set()
        await self.hold_first.wait()
        yield self._tokens(sequence, first)
        if sequence.HasField("cache"):
            yield self.cache.keep(self.cache.block_keys(sequence))
        transport = "local" if is_whole else "shm"
        yield _done(_key(sequence), P, transport=transport, cached_tokens=cached_tokens)
        if is_whole:
            async for message in self._go_on(sequence, first + 1):
                yield message

    def _cached_tokens(self, command: pb.PrefillCommand) -> int:
        """Of its own cache, or of that of the instance that is said to have the prefix."""
        own = self.cache.prefix_tokens(command.sequence)
        source = self.world.caches.get(command.prefix.instance_id)
        return own if source is None else max(own, source.prefix_tokens(command.sequence))

    async def _decode(self, sequence: pb.Sequence) -> AsyncIterator[pb.StageMessage]:
        """Goes on after the prefill, or where the instance that it moved from stopped."""
        await self.world.prefilled[_key(sequence)].wait()
        first = self.world.moved.get(_key(sequence), len(sequence.output_token_ids) + 1)
        async for message in self._go_on(sequence, first):
            yield message

    async def _migrate(self, command: pb.MigrateCommand) -> AsyncIterator[pb.StageMessage]:
        old, new = (command.request_id, command.attempt), (command.request_id, command.new_attempt)
        await self.hold_move.wait()
        report = pb.MigrationReport(
            request_id=old[0], attempt=old[1], new_attempt=new[1], reason=self.move_refusal
        )
        if not self.move_refusal:
            await self._leave(old, new)
            report.has_moved, report.pause_ns, report.size_bytes, report.transport = True, 2_000_000, 5, "shm"
            decoded = _done(old, D)
            await self.hold_report.wait()
            yield decoded
        yield pb.StageMessage(migration=report)

    async def _leave(self, old: Key, new: Key) -> None:
        working = [task for (key, kind), task in self.jobs.items() if key == old and "migrate" not in kind]
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
        self.world.moved[new] = self.made[old]
        self.world.prefilled[new].set()

    async def _go_on(self, sequence: pb.Sequence, first: int) -> AsyncIterator[pb.StageMessage]:
        self.made[_key(sequence)] = first
        for index in range(first, sequence.sampling.max_tokens):
            if self.pause_at is not None and index >= self.pause_at:
                await self._resumed.wait()
            self.made[_key(sequence)] = index + 1
            message = self._tokens(sequence, index)
            if message.step.sequences[0].finish:
                yield _done(_key(sequence), D)
            yield message
            if message.step.sequences[0].finish:
                return
            await asyncio.sleep(0)

    def _tokens(self, sequence: pb.Sequence, index: int) -> pb.StageMessage:
        token = self.make_token(sequence.sampling.seed, index)
        finish = inference_pb2.FINISH_REASON_UNSPECIFIED
        if index + 1 == sequence.sampling.max_tokens:
            finish = inference_pb2.FINISH_REASON_LENGTH
        if token in sequence.stop_token_ids:
            finish = inference_pb2.FINISH_REASON_STOP
        run = pb.SequenceTokens(
            request_id=sequence.request_id,
            attempt=sequence.attempt,
            first_index=index,
            token_ids=[token],
            finish=finish,
        )
        if sequence.sampling.HasField("logprobs"):
            top = [
                inference_pb2.Alternative(token_id=n, logprob=-n) for n in range(sequence.sampling.logprobs)
            ]
            run.logprobs.add(logprob=-1.0, top=top)
        return pb.StageMessage(step=pb.StepReport(sequences=[run]))


def prompt_of(sequence: pb.Sequence) -> list[int]:
    packed = sequence.prompt_token_ids
    return list(struct.unpack(f"<{len(packed) // 4}I", packed))


def _key(message: pb.EncodeCommand | pb.Sequence | pb.CancelCommand) -> Key:
    return message.request_id, message.attempt


def _no_failure(_kind: str, _key: Key) -> pb.FailureReport | None:
    return None


def _done(key: Key, stage: inference_pb2.Stage.ValueType, **fields: int | str) -> pb.StageMessage:
    now_ns = time.time_ns()
    report = pb.StageReport(
        request_id=key[0], attempt=key[1], stage=stage, start_ns=now_ns, end_ns=now_ns, **fields
    )
    return pb.StageMessage(stage=report)
