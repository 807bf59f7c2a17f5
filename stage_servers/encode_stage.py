"""ENCODE: pull a media item, preprocess it off the engine thread, encode it, push the embedding on.

What the cache holds, or another job is making, is only pushed on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

from core.sequence import CacheUse, MediaSpan
from core.stages import Stage
from kv_transfer.errors import TransferError
from kv_transfer.in_place.calls import IN_PLACE
from kv_transfer.in_place.lender import Lender
from kv_transfer.sender import PeerAddress, Sender
from stage_servers.cache.embeddings import EmbeddingCache
from stage_servers.cache.held import HeldEmbedding
from stage_servers.encode_once import EncodeOnce
from stage_servers.encoding.pipeline import EncodePipeline
from stage_servers.engine.media import MediaError
from stage_servers.media_pull import MediaGoneError, MediaSource
from stage_servers.parcel import Parcel
from stage_servers.reports import Key, Reports

if TYPE_CHECKING:
    from stage_servers.encoding.queue import Encoded

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EncodeJob:
    """One media item of one request, and the peer that prefills the request."""

    key: Key
    source: MediaSource
    span: MediaSpan
    prefill: PeerAddress
    cache: CacheUse | None = None  # None: nothing is looked up or kept


class EncodeStage:
    """Runs encode jobs as tasks.

    `is_here` tells this instance's own address, and `deliver_locally` hands it an embedding.
    """

    def __init__(
        self,
        *,
        pipeline: EncodePipeline,
        sender: Sender,
        reports: Reports,
        is_here: Callable[[PeerAddress], bool],
        deliver_locally: Callable[[Key, int, HeldEmbedding], None],
        cache: EmbeddingCache,
        lender: Lender,
    ) -> None:
        self._pipeline = pipeline
        self._sender = sender
        self._reports = reports
        self._is_here = is_here
        self._deliver_locally = deliver_locally
        self._lender = lender
        self._once = EncodeOnce(cache, self._encode)

    @property
    def num_waiting(self) -> int:
        """Items that are fetched or preprocessed, or wait for the device."""
        return self._pipeline.num_waiting

    async def run(self, job: EncodeJob) -> None:
        """One job from end to end; whatever goes wrong is reported, not raised."""
        try:
            await self._serve(job)
        except MediaError as error:
            self._fail(job, grpc.StatusCode.INVALID_ARGUMENT, str(error), field="image")
        except MediaGoneError as error:
            self._fail(job, grpc.StatusCode.UNAVAILABLE, str(error))
        except TransferError as error:
            # NOT_FOUND: the prefill instance has ended its part, and tells the coordinator so itself.
            has_ended = error.cause == grpc.StatusCode.NOT_FOUND.name
            code = grpc.StatusCode.NOT_FOUND if has_ended else grpc.StatusCode.UNAVAILABLE
            self._fail(job, code, f"the embedding was not taken: {error}")
        except Exception as error:
            logger.warning("encoding item %d of %s failed: %s", job.span.item_index, job.key[0], error)
            self._fail(job, grpc.StatusCode.UNAVAILABLE, f"encoding failed: {error}")

    def check_idle(self) -> None:
        """Raises AssertionError if an item is at work."""
        self._once.check_idle()

    async def _serve(self, job: EncodeJob) -> None:
        start_ns = time.time_ns()
        obtained = await self._once.obtain(job)
        parcel = Parcel(obtained.held)
        try:
            transport = await self._deliver(job, parcel)
        finally:
            parcel.release()
        self._reports.stage_done(
            job.key,
            Stage.ENCODE,
            start_ns=start_ns,
            end_ns=time.time_ns(),
            item_index=job.span.item_index,
            transport=transport,
            cached_tokens=job.span.num_tokens if obtained.is_cached else 0,
            device_s=obtained.device_s,
        )

    async def _encode(self, job: EncodeJob) -> Encoded:
        return await self._pipeline.run(job.source, job.span, comes_back=self._is_here(job.prefill))

    async def _deliver(self, job: EncodeJob, parcel: Parcel) -> str:
        """Returns the transport's name."""
        held, item_index = parcel.held, job.span.item_index
        if self._is_here(job.prefill):
            self._deliver_locally(job.key, item_index, held)
            return "local"
        if await self._lender.lend(job.prefill, job.key, item_index, len(held.embedding), held):
            return IN_PLACE
        waiting = asyncio.create_task(parcel.leave_blocks())
        try:
            return await self._sender.send_embedding(
                job.prefill, job.key, item_index, held.embedding, latest=parcel.take
            )
        finally:
            waiting.cancel()
            await asyncio.wait([waiting])

    def _fail(self, job: EncodeJob, code: grpc.StatusCode, message: str, field: str = "") -> None:
        self._reports.failed(
            job.key, Stage.ENCODE, code, message, item_index=job.span.item_index, field=field
        )
