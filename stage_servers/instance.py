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
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import grpc

from core.sequence import SequenceSpec
from core.stages import ModalityGroup, Roles, Stage
from elasticmm.v1 import stage_control_pb2
from kv_transfer.errors import UnknownRequest
from kv_transfer.layout import PayloadKind
from kv_transfer.pool import Pool
from kv_transfer.receiver import TransferReceiver
from kv_transfer.sender import PeerAddress, Sender
from kv_transfer.stats import PairCounters
from stage_servers.cache.held import HeldEmbedding
from stage_servers.cache.settings import CacheSettings
from stage_servers.embeddings import EmbeddingShelf
from stage_servers.encode_stage import EncodeJob, EncodeStage
from stage_servers.engine_thread import EngineThread
from stage_servers.expectations import Expectations
from stage_servers.media_pull import MediaPuller
from stage_servers.migration import MigrationStage
from stage_servers.prefill_stage import PrefillStage
from stage_servers.reports import Key, Reports
from stage_servers.tasks import TaskTable
from stage_servers.wire import sequence_tokens, step_measure

if TYPE_CHECKING:
    import torch

    from stage_servers.cache.embeddings import EmbeddingCache
    from stage_servers.engine.engine import Engine
    from stage_servers.engine.records import SequenceFailure, StepOutput, TokenOutput, WrittenChunk
    from stage_servers.engine.served import ServedModel


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
        embedding_cache: CacheSettings = CacheSettings(),  # noqa: B008 - frozen
    ) -> None:
        self.instance_id = ""  # given by the coordinator
        self.roles = roles
        self.group = group
        self.reports = Reports()
        self._kv = kv
        self._sender = sender
        self._model = model
        self._puller = MediaPuller(token)
        self._workers = ThreadPoolExecutor(media_workers, thread_name_prefix="media")
        self._shelf = EmbeddingShelf(embeddings, sender.in_place, self.reports, embedding_cache)
        self._to_prefill = Expectations()
        self._to_decode = Expectations()
        self._decoding: dict[Key, SequenceSpec] = {}
        self._decode_start_ns: dict[Key, int] = {}
        self._tasks = TaskTable()
        self._cancelling: set[asyncio.Task[None]] = set()

    def start(self, engine: Engine, receiver: TransferReceiver, max_encode_tokens: int) -> None:
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
        )
        self._prefill = PrefillStage(engine, self._thread, self._kv, self._sender, self.reports)
        self._migration = MigrationStage(
            engine, self._thread, self._kv, self._sender, self.reports, on_moved=self._moved_away
        )
        self._encode = EncodeStage(
            model=self._model,
            thread=self._thread,
            sender=self._sender,
            puller=self._puller,
            reports=self.reports,
            deliver_locally=self._provide_held,
            workers=self._workers,
            cache=self._shelf.cache,
            lender=self._shelf.lender,
        )
        self._thread.start()
        self._shelf.start()

    async def stop(self) -> None:
        """Drops every request and ends the threads."""
        if not self.crashed.done():
            await self.drop_all()
        self.crashed.cancel()
        self._shelf.close()
        await asyncio.to_thread(self._thread.stop)
        self._workers.shutdown(wait=True, cancel_futures=True)
        await self._puller.close()

    # Commands of the coordinator

    def encode(self, job: EncodeJob) -> None:
        is_local = job.prefill.instance_id == self.instance_id
        self._tasks.spawn(job.key, self._encode.run(job, is_local=is_local))

    def prefill(self, spec: SequenceSpec, decode: PeerAddress) -> None:
        self._to_prefill.add(spec.key)
        self._shelf.expect(spec)
        if decode.instance_id == self.instance_id:
            self._decoding[spec.key] = spec
            self._admit(spec.key, Stage.PREFILL, lambda: self._engine.add_prefill(spec, hand_over=False))
        else:
            self._tasks.spawn(spec.key, self._prefill_away(spec, decode))

    def decode(self, spec: SequenceSpec) -> None:
        self._decoding[spec.key] = spec
        self._to_decode.add(spec.key)

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
        self._decode_start_ns[key] = time.time_ns()
        going_on = replace(spec, outputs=outputs)
        self._admit(
            key, Stage.DECODE, lambda: self._engine.add_decode(going_on, block_ids, num_tokens), block_ids
        )

    def on_embedding(self, key: Key, item_index: int, block_ids: list[int], num_tokens: int) -> None:
        if key not in self._to_prefill:
            raise UnknownRequest(f"request {key[0]} has ended here")
        self._provide(key, item_index, self._shelf.arrived(key, item_index, block_ids, num_tokens))

    def on_embedding_in_place(
        self, key: Key, item_index: int, embedding: torch.Tensor, let_go: Callable[[], None]
    ) -> None:
        """ReadingHost."""
        if key not in self._to_prefill:
            raise UnknownRequest(f"request {key[0]} has ended here")
        self._provide(key, item_index, self._shelf.put(key, HeldEmbedding(embedding, let_go)))

    # What the engine does

    def on_layer_written(self, layer: int, chunks: Sequence[WrittenChunk]) -> None:
        """EngineListener, in the engine thread."""
        self._prefill.on_layer_written(layer, chunks)

    def _on_step(self, output: StepOutput) -> None:
        """In the engine thread."""
        self._loop.call_soon_threadsafe(self._step_done, output, time.time_ns())

    def _step_done(self, output: StepOutput, end_ns: int) -> None:
        start_ns = end_ns - int(output.duration_s * 1e9)
        for chunk in output.prefilled:
            if chunk.key in self._to_prefill:  # else it was given up while this step ran
                self._prefill.started_ns.setdefault(chunk.key, start_ns)
        for failure in output.failed:
            self._sequence_failed(failure)
        for token in output.tokens:
            self._note(token, end_ns)
        if output.tokens:
            report = stage_control_pb2.StepReport(
                sequences=[sequence_tokens(token) for token in output.tokens],
                load=self.load(),
                measure=step_measure(output.shape, output.duration_s),
            )
            self.reports.send(stage_control_pb2.StageMessage(step=report))
        for token in output.tokens:
            if token.finish is not None:
                self._forget(token.key)

    def _note(self, token: TokenOutput, now_ns: int) -> None:
        """Reports the stages that this token ends."""
        key = token.key
        if key in self._prefill:
            self._prefill.first_token(token)
            return
        prefill_start_ns = self._prefill.started_ns.pop(key, None)
        if prefill_start_ns is not None and key in self._to_prefill:
            self.reports.stage_done(
                key, Stage.PREFILL, start_ns=prefill_start_ns, end_ns=now_ns, transport="local"
            )
            self._decode_start_ns[key] = now_ns
        if token.finish is not None:
            self._report_decoded(key, now_ns)

    def _report_decoded(self, key: Key, now_ns: int) -> None:
        start_ns = self._decode_start_ns.get(key, now_ns)
        self.reports.stage_done(key, Stage.DECODE, start_ns=start_ns, end_ns=now_ns)

    def _sequence_failed(self, failure: SequenceFailure) -> None:
        """The engine gave a sequence up; where it may go on elsewhere the coordinator dispatches it again."""
        if self._prefill.failed(failure.key, failure.reason):
            return
        code = grpc.StatusCode.ABORTED if failure.is_retryable else grpc.StatusCode.INTERNAL
        self.reports.failed(failure.key, Stage.DECODE, code, failure.reason)
        self._forget(failure.key)

    def _crash(self, error: Exception) -> None:
        if not self.crashed.done():
            self.crashed.set_exception(error)

    def _provide(self, key: Key, item_index: int, embedding: torch.Tensor) -> None:
        self._thread.post(lambda: self._engine.provide_embedding(key, item_index, embedding))

    def _provide_held(self, key: Key, item_index: int, held: HeldEmbedding) -> None:
        """For as long as the sequence is here; one that has ended needs nothing."""
        if key in self._to_prefill:
            self._provide(key, item_index, self._shelf.put(key, held.share()))

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
        self._report_decoded(key, time.time_ns())
        self._forget(key)

    # Book-keeping

    async def _prefill_away(self, spec: SequenceSpec, decode: PeerAddress) -> None:
        try:
            await self._prefill.run(spec, decode)
        finally:
            self._to_prefill.end(spec.key)
            self._thread.post(lambda: self._loop.call_soon_threadsafe(self._shelf.release, spec.key))

    def _forget(self, key: Key) -> None:
        """The sequence has ended here; its embeddings go once the engine has let go of them."""
        self._decoding.pop(key, None)
        self._decode_start_ns.pop(key, None)
        self._prefill.started_ns.pop(key, None)
        self._to_prefill.end(key)
        self._to_decode.end(key)
        self._thread.post(lambda: self._loop.call_soon_threadsafe(self._shelf.release, key))

    def load(self) -> stage_control_pb2.Load:
        return stage_control_pb2.Load(
            encode_waiting=self._encode.num_waiting,
            encode_running=self._thread.num_encoding,
            prefill_waiting_tokens=self._engine.prefill_waiting_tokens,
            sequences_prefilling=self._engine.num_prefilling,
            sequences_decoding=self._engine.num_decoding,
            free_kv_blocks=self._kv.blocks.num_free,
            free_embedding_blocks=self._shelf.num_free_blocks,
            leases=self._receiver.leases.num_open,
            quarantined_blocks=self._receiver.leases.num_quarantined_blocks,
        )

    async def check_idle(self) -> None:
        """Raises AssertionError if anything of a request is held; for when none is here."""
        await self._thread.call(self._engine.check_integrity)
        self._receiver.check_integrity()
        self._sender.check_idle()
        self._shelf.check_idle()
        self._encode.check_idle()
        held = {
            "tasks": list(self._tasks),
            "cancelling": self._cancelling,
            "to prefill": len(self._to_prefill),
            "to decode": len(self._to_decode),
            "decoding": self._decoding,
            "times": [*self._decode_start_ns, *self._prefill.started_ns],
            "leases": list(map(str, self._receiver.leases)),
            "kv": self._kv.num_blocks - self._kv.blocks.num_free,
        }
        if any(held.values()):
            raise AssertionError(f"held by nobody: { {name: what for name, what in held.items() if what} }")

    @property
    def embedding_cache(self) -> EmbeddingCache:
        return self._shelf.cache

    def transfers(self) -> tuple[PairCounters, ...]:
        """What was sent so far, per peer and transport."""
        return self._sender.counters()
