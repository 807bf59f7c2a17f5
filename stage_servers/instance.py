"""One instance: its roles over one engine, from commands in to reports out.

                    commands                           reports
    coordinator ──────────────► Instance ─────────────────────► coordinator
                                 │    ▲ step outputs
                        calls    ▼    │
                              EngineThread
                peers ◄── Sender      TransferReceiver ◄── peers

Lives on the event loop; only what says so runs in the engine thread.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import grpc

from core.encode_order import SLICE_S, EncodeOrder
from core.grammars import Matcher
from core.ids import host_id
from core.sequence import SequenceSpec
from core.stages import ModalityGroup, Roles, Stage
from elasticmm.v1 import stage_control_pb2
from kv_transfer.errors import UnknownRequest
from kv_transfer.layout import PayloadKind
from kv_transfer.pool import Pool
from kv_transfer.receiver import TransferReceiver
from kv_transfer.sender import PeerAddress, Sender
from kv_transfer.stats import PairCounters
from stage_servers.cache.control import CacheControl
from stage_servers.cache.counters import kv_counters
from stage_servers.cache.kv_store import KvPrefixStore
from stage_servers.cache.prefix_service import PrefixService
from stage_servers.cache.reports import CacheReports
from stage_servers.cache.settings import CacheSettings
from stage_servers.embedding_supply import EmbeddingSupply
from stage_servers.embeddings import EmbeddingShelf
from stage_servers.encode_stage import EncodeJob, EncodeStage
from stage_servers.encoding.pipeline import EncodePipeline
from stage_servers.engine_thread import EngineThread
from stage_servers.expectations import Expectations
from stage_servers.held import HeldCalls
from stage_servers.landing import Landing
from stage_servers.load import load_of
from stage_servers.media_pull import MediaPuller
from stage_servers.migration import MigrationStage
from stage_servers.prefill_stage import PrefillStage
from stage_servers.preparation import Preparation
from stage_servers.reports import Key, Reports
from stage_servers.step_reports import StepReports
from stage_servers.tasks import TaskTable

if TYPE_CHECKING:
    import torch

    from core.tls import TlsFiles
    from stage_servers.cache.embeddings import EmbeddingCache
    from stage_servers.engine.engine import Engine
    from stage_servers.engine.records import StepOutput, WrittenChunk
    from stage_servers.engine.served import ServedModel

logger = logging.getLogger(__name__)


class Instance:
    """Implements TransferHost (for peers' pushes) and EngineListener (for written layers)."""

    def __init__(
        self,
        *,
        model: ServedModel,
        kv: Pool,
        embeddings: Pool,
        sender: Sender,
        token: str,
        roles: Roles,
        group: ModalityGroup,
        media_workers: int,
        pull_timeout_s: float,
        embedding_cache: CacheSettings | None = None,
        tls: TlsFiles | None = None,
    ) -> None:
        self.instance_id = ""  # given by the coordinator
        self.endpoint = ""  # of its transfer service, once that is bound
        self.roles = roles
        self.group = group
        self.reports = Reports()
        self.caches = CacheReports(self.reports)
        self._kv = kv
        self._sender = sender
        self._model = model
        self._puller = MediaPuller(token, tls)
        self._shelf = EmbeddingShelf(embeddings, sender.in_place, self.caches, embedding_cache)
        self.caches.add_counters(self._shelf.cache.counters)
        self._media_workers = media_workers
        self._to_prefill = Expectations()
        self._to_decode = Expectations()
        self._decoding: dict[Key, SequenceSpec] = {}
        self._held = HeldCalls()
        self._pull_timeout_s = pull_timeout_s
        self._prefixes: PrefixService | None = None
        self._tasks = TaskTable()
        self._cancelling: set[asyncio.Task[None]] = set()

    def start(
        self,
        engine: Engine,
        receiver: TransferReceiver,
        max_encode_tokens: int,
        *,
        slice_s: float = SLICE_S,
        encode_order: EncodeOrder = "shortest",
    ) -> None:
        """Joins the parts that need this object to exist; call on the event loop."""
        self._loop = asyncio.get_running_loop()
        self.crashed: asyncio.Future[None] = self._loop.create_future()
        self._engine = engine
        self._receiver = receiver
        self._thread = EngineThread(
            self._model,
            engine,
            on_step=self._on_step,
            on_crash=lambda error: self._loop.call_soon_threadsafe(self._crash, error),
            max_encode_tokens=max_encode_tokens,
            slice_s=slice_s,
            encode_order=encode_order,
        )
        self.cache_control = CacheControl(self._thread, engine, self._shelf.cache)
        self._pipeline = EncodePipeline(
            self._model,
            self._thread,
            self._puller,
            num_workers=self._media_workers,
            slice_s=slice_s,
            order=encode_order,
        )
        if engine.cache is not None:
            self._prefixes = PrefixService(
                KvPrefixStore(engine.cache),
                self._thread,
                self._kv,
                self._sender,
                receiver,
                address=lambda: PeerAddress(self.instance_id, self.endpoint, host_id(), receiver.epoch),
                timeout_s=self._pull_timeout_s,
            )
            receiver.serve_prefixes(self._prefixes)
            self.caches.add_counters(partial(kv_counters, engine.cache))
        self._preparation = Preparation(engine.grammars, self._prefixes)
        self._landing = Landing(engine, self._kv.blocks, self._preparation, self._tasks, self._admit)
        self._prefill = PrefillStage(
            engine, self._thread, self._kv, self._sender, self.reports, on_added=self._held.release
        )
        self._steps = StepReports(
            self.reports,
            self._prefill,
            load=self.load,
            is_prefilling=lambda key: key in self._to_prefill and key not in self._to_decode,
            on_end=self._forget,
        )
        self._migration = MigrationStage(
            engine, self._thread, self._kv, self._sender, self.reports, on_moved=self._moved_away
        )
        self._supply = EmbeddingSupply(
            engine, self._thread, self._shelf, self.reports, to_prefill=self._to_prefill, held=self._held
        )
        self._encode = EncodeStage(
            pipeline=self._pipeline,
            sender=self._sender,
            reports=self.reports,
            is_here=lambda peer: peer.instance_id == self.instance_id,
            deliver_locally=self._supply.made_here,
            cache=self._shelf.cache,
            lender=self._shelf.lender,
        )
        self._kv.blocks.call_when_short(lambda count: self._thread.post(lambda: engine.make_room(count)))
        self._thread.start()
        self._shelf.start()

    async def stop(self) -> None:
        """Drops every request and ends the threads."""
        if not self.crashed.done():
            await self.drop_all()
        self.crashed.cancel()
        if self._prefixes is not None:
            await self._prefixes.stop()
        self._shelf.close()
        await asyncio.to_thread(self._thread.stop)
        self._pipeline.close()
        await self._puller.close()

    # Commands of the coordinator

    def aim_for(self, tpot_s: float) -> None:
        self._thread.aim_for(tpot_s)

    def encode(self, job: EncodeJob) -> None:
        self._tasks.spawn(job.key, self._encode.run(job))

    def prefill(
        self,
        spec: SequenceSpec,
        decode: PeerAddress,
        prefix_tokens: int = 0,
        holder: PeerAddress | None = None,
    ) -> None:
        """Of `prefix_tokens` an instance, or `holder`, has the KV, and no embedding within them is sent."""
        self._to_prefill.add(spec.key)
        self._shelf.expect(spec)
        if decode.instance_id == self.instance_id:
            self._decoding[spec.key] = spec
        self._held.hold(spec.key)  # until the engine has the sequence: what is cached may be here before
        begin = partial(self._begin_prefill, spec, decode, prefix_tokens)
        if self._preparation.is_needed(spec, holder):
            self._tasks.spawn(spec.key, self._preparation.run(spec, holder, prefix_tokens, begin))
        else:
            begin(None)

    def decode(self, spec: SequenceSpec) -> None:
        self._decoding[spec.key] = spec
        self._to_decode.add(spec.key)
        self._landing.expect(spec)

    def migrate(self, key: Key, new_attempt: int, target: PeerAddress) -> None:
        self._tasks.spawn(key, self._migration.run(key, new_attempt, target))

    def cancel_soon(self, key: Key) -> None:
        """As cancel, without waiting for the step at hand."""
        task = asyncio.create_task(self.cancel(key))
        self._cancelling.add(task)
        task.add_done_callback(self._cancelling.discard)

    async def cancel(self, key: Key) -> None:
        """Stops all work on one dispatch and frees what it holds; unknown keys are no error."""
        await self._tasks.cancel(key)
        await self._thread.call(lambda: self._engine.abort(key))
        self._receiver.release_request(key)
        self._forget(key)

    async def drop_all(self) -> None:
        """Cancels everything: the coordinator that asked for it is gone."""
        keys = set(self._tasks) | set(self._decoding)
        await asyncio.gather(*self._cancelling, *(self.cancel(key) for key in keys))

    # Pushes of peers (TransferHost)

    async def expect(
        self,
        key: Key,
        kind: PayloadKind,
        item_index: int | None,  # noqa: ARG002
        num_tokens: int,  # noqa: ARG002
    ) -> None:
        """Waits until the coordinator's command for this request is here."""
        await (self._to_decode if kind is PayloadKind.KV else self._to_prefill).wait(key)

    def on_kv(self, key: Key, block_ids: list[int], num_tokens: int, outputs: tuple[int, ...]) -> None:
        """The KV of `num_tokens` tokens is in these blocks: decode on."""
        spec = self._decoding.get(key)
        if spec is None:
            raise UnknownRequest(f"request {key[0]} has ended here")
        self._steps.decode_began(key)
        self._landing.add(replace(spec, outputs=outputs), block_ids, num_tokens)

    def on_embedding(self, key: Key, item_index: int, block_ids: list[int], num_tokens: int) -> None:
        self._supply.arrived(key, item_index, block_ids, num_tokens)

    def on_embedding_in_place(
        self, key: Key, item_index: int, embedding: torch.Tensor, let_go: Callable[[], None]
    ) -> None:
        """ReadingHost."""
        self._supply.lent(key, item_index, embedding, let_go)

    # What the engine does

    def on_layers_written(self, layers: range, chunks: Sequence[WrittenChunk]) -> None:
        """EngineListener, in the engine thread."""
        self._prefill.on_layers_written(layers, chunks)

    def on_items_needed(self, key: Key, item_indices: tuple[int, ...]) -> None:
        """In the engine thread: embeddings are needed that nobody sends."""
        self._loop.call_soon_threadsafe(self._ask_for, key, item_indices)

    def _on_step(self, output: StepOutput) -> None:
        """In the engine thread."""
        self._loop.call_soon_threadsafe(self._tell_of, output, time.time_ns())

    def _ask_for(self, key: Key, item_indices: tuple[int, ...]) -> None:
        """One that came to be decoded here, and is computed again, is sent what its prefill was sent."""
        if key in self._to_decode:
            self._to_prefill.add(key)
            self._shelf.expect(self._decoding[key])
        self._supply.needed(key, item_indices)

    def _tell_of(self, output: StepOutput, end_ns: int) -> None:
        """Requests whose tokens are not told wait for ever, so that this instance is no use any more."""
        try:
            self._steps.step_done(output, end_ns)
        except Exception as error:
            logger.exception("a step cannot be told of")
            self._crash(error)

    def _crash(self, error: Exception) -> None:
        if not self.crashed.done():
            self.crashed.set_exception(error)

    def _admit(self, key: Key, stage: Stage, add: Callable[[], None], block_ids: Sequence[int] = ()) -> None:
        """Gives a sequence to the engine; a refusal is reported and its blocks go back."""

        def run() -> None:
            try:
                add()
            except ValueError as error:
                self._kv.blocks.release(block_ids)
                self._loop.call_soon_threadsafe(self._refused, key, stage, str(error))

        self._thread.post(run)

    def _refused(self, key: Key, stage: Stage, reason: str) -> None:
        self.reports.failed(key, stage, grpc.StatusCode.INVALID_ARGUMENT, reason)
        self._forget(key)

    def _moved_away(self, key: Key) -> None:
        self._steps.decoded(key, time.time_ns())
        self._forget(key)

    # Book-keeping

    def _begin_prefill(
        self, spec: SequenceSpec, decode: PeerAddress, prefix_tokens: int, matcher: Matcher | None
    ) -> None:
        if decode.instance_id != self.instance_id:
            self._tasks.spawn(spec.key, self._prefill_away(spec, decode, prefix_tokens, matcher))
            return
        add = partial(self._engine.add_prefill, spec, promised_tokens=prefix_tokens, matcher=matcher)
        self._admit(spec.key, Stage.PREFILL, partial(add, hand_over=False))
        self._held.release(spec.key)

    async def _prefill_away(
        self, spec: SequenceSpec, decode: PeerAddress, prefix_tokens: int, matcher: Matcher | None
    ) -> None:
        try:
            await self._prefill.run(spec, decode, prefix_tokens, matcher)
        finally:
            self._held.drop(spec.key)
            self._to_prefill.end(spec.key)
            self._thread.post(lambda: self._loop.call_soon_threadsafe(self._shelf.release, spec.key))

    def _forget(self, key: Key) -> None:
        """The sequence has ended here; its embeddings go once the engine has let go of them."""
        self._decoding.pop(key, None)
        self._landing.drop(key)
        self._held.drop(key)
        self._steps.forget(key)
        self._to_prefill.end(key)
        self._to_decode.end(key)
        self._thread.post(lambda: self._loop.call_soon_threadsafe(self._shelf.release, key))

    @property
    def is_idle(self) -> bool:
        """Whether no request is worked on here."""
        return not self._decoding and not any(self._tasks)

    def load(self) -> stage_control_pb2.Load:
        return load_of(self._engine, self._thread, self._encode, self._shelf, self._receiver.leases)

    async def check_idle(self) -> None:
        """Raises AssertionError if anything of a request is held; for when none is here."""
        await self._thread.call(self._engine.check_integrity)
        self._receiver.check_integrity()
        self._sender.check_idle()
        self._shelf.check_idle()
        if self._prefixes is not None:
            self._prefixes.check_idle()
        self._encode.check_idle()
        self._pipeline.check_idle()
        held = {
            "tasks": list(self._tasks),
            "cancelling": self._cancelling,
            "to prefill": len(self._to_prefill),
            "to decode": len(self._to_decode),
            "decoding": self._decoding,
            "held": list(self._held),
            "landed": len(self._landing),
            "times": self._steps.times,
            "leases": list(map(str, self._receiver.leases)),
            "kv": self._kv.num_blocks - self._engine.num_free_blocks,
        }
        if any(held.values()):
            raise AssertionError(f"held by nobody: { {name: what for name, what in held.items() if what} }")

    @property
    def embedding_cache(self) -> EmbeddingCache:
        return self._shelf.cache

    def transfers(self) -> tuple[PairCounters, ...]:
        """What was sent so far, per peer and transport."""
        return self._sender.counters()
