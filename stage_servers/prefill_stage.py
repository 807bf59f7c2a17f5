"""PREFILL: run the prompt, push KV to the decode peer layer by layer, make the first token."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError as ThreadCancelled
from functools import partial
from typing import TYPE_CHECKING

import grpc

from core.grammars import Matcher
from core.sequence import SequenceSpec
from core.stages import Stage
from kv_transfer.layout import PayloadKind
from kv_transfer.pool import Pool
from kv_transfer.sender import Outgoing, PeerAddress, Sender
from stage_servers.engine_thread import EngineThread
from stage_servers.hand_over import HandOver
from stage_servers.reports import Key, Reports, Started

if TYPE_CHECKING:
    from stage_servers.engine.engine import Engine
    from stage_servers.engine.records import TokenOutput, WrittenChunk

logger = logging.getLogger(__name__)


class PrefillStage:
    """Owns the hand-overs of this instance; the engine tells it of written layers."""

    def __init__(
        self,
        engine: Engine,
        thread: EngineThread,
        kv: Pool,
        sender: Sender,
        reports: Reports,
        *,
        on_added: Callable[[Key], None] = lambda _: None,
    ) -> None:
        """`on_added` is told of each sequence that the engine was given, or refused."""
        self._engine = engine
        self._thread = thread
        self._kv = kv
        self._sender = sender
        self._reports = reports
        self._on_added = on_added
        self._hand_overs: dict[Key, HandOver] = {}
        self.started: dict[Key, Started] = {}

    def on_layers_written(self, layers: range, chunks: Sequence[WrittenChunk]) -> None:
        """EngineListener: called in the engine thread, inside a step."""
        for chunk in chunks:
            hand_over = self._hand_overs.get(chunk.key)
            if hand_over is not None:
                blocks = self._engine.block_ids(chunk.key)
                hand_over.layers_written(layers, chunk.first_token, chunk.num_tokens, blocks)

    def first_token(self, token: TokenOutput) -> None:
        """The engine sampled the token that ends a hand-over prefill; called before it is reported."""
        if token.finish is not None:
            self._report_done(token.key, "")
        hand_over = self._hand_overs.get(token.key)
        if hand_over is not None and not hand_over.first_token.done():
            hand_over.first_token.set_result(token)

    def failed(self, key: Key, reason: str) -> bool:
        """The engine gave the sequence up; False if it was no hand-over."""
        hand_over = self._hand_overs.get(key)
        if hand_over is None:
            return False
        if not hand_over.first_token.done():
            hand_over.first_token.set_exception(RuntimeError(reason))
        return True

    async def run(
        self,
        spec: SequenceSpec,
        decode: PeerAddress,
        promised_tokens: int = 0,
        matcher: Matcher | None = None,
    ) -> None:
        """One prefill with hand-over; failures are reported. Cancelling frees all it holds.

        `promised_tokens`, `matcher`: see Engine.add_prefill.
        """
        add = partial(
            self._engine.add_prefill, spec, hand_over=True, promised_tokens=promised_tokens, matcher=matcher
        )
        hand_over = HandOver(spec, self._kv.layout.num_planes)
        self._hand_overs[spec.key] = hand_over
        try:
            await self._hand_over(hand_over, decode, add)
        except (asyncio.CancelledError, ThreadCancelled):
            raise
        except Exception as error:
            logger.warning("prefill of %s failed: %s", spec.request_id, error)
            self._reports.failed(
                spec.key, Stage.PREFILL, grpc.StatusCode.UNAVAILABLE, f"prefill or hand-over failed: {error}"
            )
        finally:
            del self._hand_overs[spec.key]
            self.started.pop(spec.key, None)
            self._thread.post(lambda: self._drop(spec.key))

    async def _hand_over(self, hand_over: HandOver, decode: PeerAddress, add: Callable[[], None]) -> None:
        spec = hand_over.spec
        num_tokens = len(spec.prompt) + len(spec.outputs)
        adding = asyncio.ensure_future(self._thread.call(add))
        adding.add_done_callback(lambda _: self._on_added(spec.key))
        outgoing = await self._sender.open(decode, spec.key, PayloadKind.KV, 0, num_tokens, self._kv)
        try:
            await adding
            hand_over.granted(outgoing)
            token = await asyncio.wrap_future(hand_over.first_token)
            await self._finish(hand_over, outgoing, token, num_tokens)
        except BaseException:
            await outgoing.abort("the prefill ended early")
            raise

    async def _finish(
        self, hand_over: HandOver, outgoing: Outgoing, token: TokenOutput, num_tokens: int
    ) -> None:
        spec = hand_over.spec
        if token.finish is not None:
            await outgoing.abort("the answer ended with its first token")
            return
        self._report_done(spec.key, outgoing.transport)
        await outgoing.commit(num_tokens, (*spec.outputs, token.token_id))

    def _report_done(self, key: Key, transport: str) -> None:
        end_ns = time.time_ns()
        self._reports.prefilled(key, self.started.get(key, Started(end_ns, 0)), end_ns, transport)

    def _drop(self, key: Key) -> None:
        if not self._engine.abort(key):
            self._engine.release(key)

    def __contains__(self, key: Key) -> bool:
        """Whether this sequence's prefill is handed over to another instance."""
        return key in self._hand_overs
