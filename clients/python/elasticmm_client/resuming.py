"""How the reading of a resumable answer goes on after its call was lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from elasticmm.v1 import inference_pb2 as pb
from elasticmm.v1 import inference_pb2_grpc as rpc
from elasticmm_client.errors import ElasticMMError, InvalidRequest, NotRunning
from elasticmm_client.request import GenerateOptions

Call = TypeVar("Call")
Metadata = tuple[tuple[str, str], ...]

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 2.0
_CANCEL_TIMEOUT_S = 5.0
DEFAULT_KEEP_S = 300.0  # as servers have it


@dataclass(frozen=True, slots=True)
class AnswerCalls:
    """Names one answer on the server. `end_s`: when the caller's timeout passes, on the monotonic clock."""

    stub: rpc.InferenceStub
    metadata: Metadata  # that proves the API key
    request_id: str
    tenant: str
    end_s: float | None

    def resume(self, next_index: int) -> Any:
        """The stream call, of whichever kind of gRPC the stub is."""
        request = pb.InferenceResumeRequest(
            request_id=self.request_id, next_index=next_index, tenant=self.tenant
        )
        left_s = None if self.end_s is None else max(0.0, self.end_s - time.monotonic())
        return self.stub.Resume(request, metadata=self.metadata, timeout=left_s)

    def cancel(self) -> Any:
        """Stops the work."""
        request = pb.CancelRequest(request_id=self.request_id, tenant=self.tenant)
        return self.stub.Cancel(request, metadata=self.metadata, timeout=_CANCEL_TIMEOUT_S)


def answer_calls(
    stub: rpc.InferenceStub, metadata: Metadata, options: GenerateOptions, start_s: float
) -> AnswerCalls:
    """Of a request with an id that is sent at `start_s`."""
    timeout_s = options.get("timeout_s")
    end_s = None if timeout_s is None else start_s + timeout_s
    return AnswerCalls(stub, metadata, options["request_id"], options.get("tenant") or "", end_s)


class Resumption(Generic[Call]):
    """Of one stream: whether, when and how it goes on. Not for use by several threads."""

    def __init__(self, resume: Callable[[int], Call], stop: Callable[[], Any], keep_s: float) -> None:
        """resume: the call from an index on; stop: ends the work; keep_s: how long the server waits."""
        self.resume = resume
        self.stop = stop
        self._keep_s = keep_s
        self._loss: ElasticMMError | None = None  # None: the present call is sound
        self._lost_s = 0.0
        self._num_tries = 0

    def note_event(self) -> None:
        """Something arrived."""
        self._loss = None
        self._num_tries = 0

    def pause_s(self, error: ElasticMMError, now_s: float, *, is_begun: bool) -> float:
        """How long to wait before the next try. Raises what the caller should see where there is none.

        is_begun: an event has arrived, so the server was there and had the request.
        """
        if self._loss is not None and _is_gone(error):
            raise self._loss
        is_alive = is_begun or self._loss is not None
        if not error.is_lost_call or (isinstance(error, NotRunning) and not is_alive):
            raise error
        if self._loss is None:
            self._loss, self._lost_s = error, now_s
        if now_s - self._lost_s > self._keep_s:
            raise self._loss
        self._num_tries += 1
        return float(min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(self._num_tries - 1, 10)))

    def is_unknown(self, error: ElasticMMError) -> bool:
        """Whether the server never had the request whose call was lost."""
        return self._loss is not None and _is_gone(error)


def _is_gone(error: ElasticMMError) -> bool:
    return isinstance(error, InvalidRequest) and error.code == "NOT_FOUND" and error.field == "request_id"
