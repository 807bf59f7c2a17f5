"""ENCODE: pull a media item, preprocess it off the engine thread, encode it, push the embedding on."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

from core.sequence import MediaSpan
from core.stages import Stage
from kv_transfer.sender import PeerAddress, Sender
from stage_servers.encoding.pipeline import EncodePipeline
from stage_servers.engine.media import MediaError
from stage_servers.media_pull import MediaGoneError, MediaSource
from stage_servers.reports import Key, Reports

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EncodeJob:
    """One media item of one request, and the peer that prefills the request."""

    key: Key
    source: MediaSource
    span: MediaSpan
    prefill: PeerAddress


class EncodeStage:
    """Runs encode jobs as tasks; `deliver_locally` hands an embedding to this very instance."""

    def __init__(
        self,
        *,
        pipeline: EncodePipeline,
        sender: Sender,
        reports: Reports,
        deliver_locally: Callable[[Key, int, torch.Tensor], None],
    ) -> None:
        self._pipeline = pipeline
        self._sender = sender
        self._reports = reports
        self._deliver_locally = deliver_locally

    @property
    def num_waiting(self) -> int:
        """Items that are fetched or preprocessed, or wait for the device."""
        return self._pipeline.num_waiting

    async def run(self, job: EncodeJob, *, is_local: bool) -> None:
        """One job from end to end; whatever goes wrong is reported, not raised."""
        try:
            await self._encode(job, is_local=is_local)
        except MediaError as error:
            self._fail(job, grpc.StatusCode.INVALID_ARGUMENT, str(error), field="image")
        except MediaGoneError as error:
            self._fail(job, grpc.StatusCode.UNAVAILABLE, str(error))
        except Exception as error:
            logger.warning("encoding item %d of %s failed: %s", job.span.item_index, job.key[0], error)
            self._fail(job, grpc.StatusCode.UNAVAILABLE, f"encoding failed: {error}")

    async def _encode(self, job: EncodeJob, *, is_local: bool) -> None:
        start_ns = time.time_ns()
        encoded = await self._pipeline.run(job.source, job.span)
        if is_local:
            transport = "local"
            self._deliver_locally(job.key, job.span.item_index, encoded.embedding)
        else:
            transport = await self._sender.send_embedding(
                job.prefill, job.key, job.span.item_index, encoded.embedding
            )
        self._reports.stage_done(
            job.key,
            Stage.ENCODE,
            start_ns=start_ns,
            end_ns=time.time_ns(),
            item_index=job.span.item_index,
            transport=transport,
            device_s=encoded.device_s,
        )

    def _fail(self, job: EncodeJob, code: grpc.StatusCode, message: str, field: str = "") -> None:
        self._reports.failed(
            job.key, Stage.ENCODE, code, message, item_index=job.span.item_index, field=field
        )
