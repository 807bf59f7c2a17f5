"""What those who watch are told of requests: once each, when it is over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from coordinator.events import StageSpan, Usage
from coordinator.policy.seat import Seat
from coordinator.tracing.parent import TraceParent
from core.lifecycle import RequestState
from core.sequence import FinishReason
from core.stages import ModalityGroup


@dataclass(frozen=True, slots=True)
class RequestEnd:
    """An accepted request that has ended; read by metrics, the SLO report and traces.

    Seconds are from its arrival, spans in order of start.
    """

    request_id: str
    tenant: str
    group: ModalityGroup  # TEXT or MULTIMODAL
    priority: int
    state: RequestState  # FINISHED, FAILED or CANCELLED
    finish: FinishReason | None  # None where it did not finish
    arrival_ns: int  # Unix time
    queued_s: float | None  # until its first dispatch; None: there was none
    first_token_s: float | None  # None: there was none
    took_s: float  # until its last token, or until it failed or was cancelled
    usage: Usage
    spans: tuple[StageSpan, ...]
    num_dispatches: int
    num_moves: int
    trace: TraceParent | None  # what the client's call is part of
    error: str  # why it failed, "" if it did not
    seat: Seat | None = None  # in the experiment that ran; None: in none

    @property
    def per_token_s(self) -> float | None:
        """Mean time between output tokens; None with fewer than two."""
        num_more = self.usage.completion_tokens - 1
        if self.first_token_s is None or num_more < 1:
            return None
        return (self.took_s - self.first_token_s) / num_more


@dataclass(frozen=True, slots=True)
class CallEnd:
    """A client's call that the door ended without Finished."""

    tenant: str
    group: ModalityGroup
    priority: int
    error: Exception | None  # None: the client went away
    request_id: str = ""


class RequestObserver(Protocol):
    """Called on the coordinator's loop; must be quick and must not raise."""

    def on_end(self, end: RequestEnd) -> None:
        """Once for every accepted request, by the dispatcher."""
        ...

    def on_unserved(self, call: CallEnd) -> None:
        """Once for every call that got no Finished, accepted or not, by the door."""
        ...


class Observers:
    """Tells several, in order."""

    def __init__(self, *observers: RequestObserver) -> None:
        self._observers = observers

    def on_end(self, end: RequestEnd) -> None:
        for observer in self._observers:
            observer.on_end(end)

    def on_unserved(self, call: CallEnd) -> None:
        for observer in self._observers:
            observer.on_unserved(call)
