"""Ends of requests and calls, where only a little of them matters."""

from __future__ import annotations

from typing import Any

from coordinator.events import StageSpan, Usage
from coordinator.observer import CallEnd, RequestEnd
from core.lifecycle import RequestState
from core.sequence import FinishReason
from core.stages import ModalityGroup, Stage


def make_end(**changes: Any) -> RequestEnd:
    """Five tokens in 0.9 s, the first after 0.5 s."""
    facts: dict[str, Any] = {
        "request_id": "r",
        "tenant": "default",
        "group": ModalityGroup.TEXT,
        "priority": 0,
        "state": RequestState.FINISHED,
        "finish": FinishReason.STOP,
        "arrival_ns": 10**18,
        "queued_s": 0.1,
        "first_token_s": 0.5,
        "took_s": 0.9,
        "usage": Usage(prompt_tokens=10, completion_tokens=5, media_tokens=0, cached_tokens=4),
        "spans": (StageSpan(Stage.PREFILL, "p0", 100, 500), StageSpan(Stage.DECODE, "d0", 500, 900)),
        "num_dispatches": 1,
        "num_moves": 0,
        "trace": None,
        "error": "",
    }
    return RequestEnd(**facts | changes)


def make_call(error: Exception | None, **changes: Any) -> CallEnd:
    facts: dict[str, Any] = {"tenant": "default", "group": ModalityGroup.TEXT, "priority": 0}
    return CallEnd(error=error, **facts | changes)
