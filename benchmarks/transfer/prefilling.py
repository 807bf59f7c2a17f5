"""The prefilling end of a benchmark: a stage server's engine, engine thread and hand-over, with clocks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

from benchmarks.transfer.receiving import Readiness
from benchmarks.transfer.shape import TOKEN
from core.ids import host_id
from core.sequence import SequenceSpec
from kv_transfer.layout import PayloadKind
from kv_transfer.pool import Pool
from kv_transfer.sender import PeerAddress, Sender
from stage_servers.engine.engine import Engine
from stage_servers.engine.model import Model
from stage_servers.engine.records import EngineConfig, StepOutput, WrittenChunk
from stage_servers.engine_thread import EngineThread
from stage_servers.prefill_stage import PrefillStage
from stage_servers.reports import Reports


@dataclass(frozen=True, slots=True)
class Moments:
    """Of one prefill, CLOCK_MONOTONIC, which all processes of a host share."""

    started_ns: int
    last_layer_ns: int
    computed_ns: int
    ready_ns: int

    @property
    def prefill_s(self) -> float:
        return (self.computed_ns - self.started_ns) / 1e9

    @property
    def exposed_s(self) -> float:
        return (self.ready_ns - self.computed_ns) / 1e9

    @property
    def from_last_layer_s(self) -> float:
        return (self.ready_ns - self.last_layer_ns) / 1e9


class Clocked:
    """EngineListener and step listener: notes when things happen and passes them on to the prefill stage."""

    def __init__(self, num_layers: int) -> None:
        self.stage: PrefillStage | None = None  # None: nothing leaves during the prefill
        self.last_layer_ns = 0
        self.computed: asyncio.Future[tuple[int, int]] | None = None  # moment, token
        self._last_layer = num_layers - 1
        self._loop = asyncio.get_running_loop()

    def on_layers_written(self, layers: range, chunks: Sequence[WrittenChunk]) -> None:
        if self.stage is not None:
            self.stage.on_layers_written(layers, chunks)
        if self._last_layer in layers:
            self.last_layer_ns = time.monotonic_ns()

    def on_step(self, output: StepOutput) -> None:
        self._loop.call_soon_threadsafe(self._step_done, output, time.monotonic_ns())

    def _step_done(self, output: StepOutput, now_ns: int) -> None:
        for token in output.tokens:
            if self.stage is not None:
                self.stage.first_token(token)
            assert self.computed is not None
            self.computed.set_result((now_ns, token.token_id))


class Prefilling:
    """The prefilling end: a stage server's engine, thread and sender over one transport."""

    def __init__(self, model: Model, transport: str, peer: PeerAddress, pool: Pool) -> None:
        self.transport = transport
        self._pool = pool
        self._peer = peer
        self._sender = Sender(
            model_fingerprint=model.fingerprint,
            instance_id="prefill",
            host_id=host_id(),
            token=TOKEN,
            transports=[transport],
        )
        self._clocked = Clocked(model.kv_planes // 2)
        limits = EngineConfig(block_tokens=pool.layout.block_tokens)
        self._engine = Engine(model, pool.tensor, pool.blocks, limits, self._clocked)
        self._thread = EngineThread(
            model, self._engine, on_step=self._clocked.on_step, on_crash=_raise, max_encode_tokens=1
        )
        self._stage = PrefillStage(self._engine, self._thread, pool, self._sender, Reports())
        self._thread.start()

    async def hidden(self, spec: SequenceSpec, pipe: Connection) -> Moments:
        self._clocked.stage = self._stage
        computed = self._clocked.computed = asyncio.get_running_loop().create_future()
        started_ns = time.monotonic_ns()
        await self._stage.run(spec, self._peer)
        computed_ns, _ = await computed
        return Moments(started_ns, self._clocked.last_layer_ns, computed_ns, await _ready_ns(pipe))

    async def alone(self, spec: SequenceSpec, pipe: Connection) -> Moments:
        self._clocked.stage = None
        computed = self._clocked.computed = asyncio.get_running_loop().create_future()
        count, key = len(spec.prompt), spec.key
        outgoing = await self._sender.open(self._peer, key, PayloadKind.KV, 0, count, self._pool)
        started_ns = time.monotonic_ns()
        await self._thread.call(lambda: self._engine.add_prefill(spec, hand_over=True))
        computed_ns, token_id = await computed
        blocks = self._engine.block_ids(key)
        outgoing.push(0, count, range(self._pool.layout.num_planes), blocks)
        await outgoing.commit(count, (token_id,))
        await self._thread.call(lambda: self._engine.release(key))
        return Moments(started_ns, self._clocked.last_layer_ns, computed_ns, await _ready_ns(pipe))

    async def close(self) -> None:
        await asyncio.to_thread(self._thread.stop)
        await self._sender.close()


def _raise(error: Exception) -> None:
    raise error


async def _ready_ns(pipe: Connection) -> int:
    """When the transfer that was acknowledged was handed on there."""
    while True:
        pipe.send("seen?")
        seen: Readiness = await asyncio.to_thread(pipe.recv)
        if seen.ready_ns:
            [ready_ns] = seen.ready_ns
            return ready_ns
