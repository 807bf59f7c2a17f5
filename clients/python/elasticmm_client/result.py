"""A whole answer, gathered from its events."""

from __future__ import annotations

from dataclasses import dataclass

from elasticmm_client.errors import ServerError
from elasticmm_client.events import (
    Accepted,
    Event,
    Finished,
    FinishReason,
    StageSpan,
    TokenLogprobs,
    Tokens,
    Usage,
)


@dataclass(frozen=True, slots=True)
class GenerateResult:
    """A finished answer. Times are as this client saw them.

    ttft_ms: from the call of generate() to the first token; tpot_ms: mean time per
    token after the first event, None where all tokens came at once.
    """

    request_id: str
    model: str
    seed: int
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...]
    finish_reason: FinishReason
    stop_string: str | None
    usage: Usage
    stages: tuple[StageSpan, ...]
    ttft_ms: float | None
    tpot_ms: float | None


class Gatherer:
    """Collects events as they arrive, from `first_index` on; checks that no token is missing or repeated."""

    def __init__(self, start_s: float, first_index: int = 0) -> None:
        self._start_s = start_s
        self._first_index = first_index
        self._texts: list[str] = []
        self._token_ids: list[int] = []
        self._logprobs: list[TokenLogprobs] = []
        self._accepted: Accepted | None = None
        self._finished: Finished | None = None
        self._first_at_s: float | None = None
        self._last_at_s = start_s
        self._num_first = 0

    @property
    def text(self) -> str:
        """Of the tokens so far."""
        return "".join(self._texts)

    @property
    def is_accepted(self) -> bool:
        return self._accepted is not None

    @property
    def next_index(self) -> int:
        """Of the token that comes next."""
        return self._first_index + len(self._token_ids)

    @property
    def is_finished(self) -> bool:
        return self._finished is not None

    def take(self, event: Event, now_s: float) -> None:
        """Raises ServerError where the event breaks the order of tokens."""
        match event:
            case Accepted():
                self._accepted = event
            case Tokens():
                self._take_tokens(event, now_s)
            case Finished():
                self._finished = event

    def check_finished(self) -> None:
        """Raises ServerError if the stream ended before the answer did."""
        if self._finished is None or self._accepted is None:
            raise ServerError("the stream ended before the answer did", code="DATA_LOSS")

    def result(self) -> GenerateResult:
        """The answer; raises ServerError if it did not come to its end."""
        self.check_finished()
        assert self._finished is not None
        assert self._accepted is not None
        return GenerateResult(
            request_id=self._accepted.request_id,
            model=self._accepted.model,
            seed=self._accepted.seed,
            text=self.text,
            token_ids=tuple(self._token_ids),
            logprobs=tuple(self._logprobs),
            finish_reason=self._finished.reason,
            stop_string=self._finished.stop_string,
            usage=self._finished.usage,
            stages=self._finished.stages,
            ttft_ms=self._ttft_ms(),
            tpot_ms=self._tpot_ms(),
        )

    def _take_tokens(self, event: Tokens, now_s: float) -> None:
        if event.first_index != self.next_index:
            raise ServerError(
                f"token {self.next_index} was next, the server sent {event.first_index}",
                code="DATA_LOSS",
            )
        self._texts.append(event.text)
        self._token_ids += event.token_ids
        self._logprobs += event.logprobs
        if event.token_ids:
            self._last_at_s = now_s
        if event.token_ids and self._first_at_s is None:
            self._first_at_s, self._num_first = now_s, len(event.token_ids)

    def _ttft_ms(self) -> float | None:
        return None if self._first_at_s is None else (self._first_at_s - self._start_s) * 1e3

    def _tpot_ms(self) -> float | None:
        num_later = len(self._token_ids) - self._num_first
        if self._first_at_s is None or num_later == 0:
            return None
        return (self._last_at_s - self._first_at_s) * 1e3 / num_later
