"""From the stages' token runs to one client's stream: in order, each index once, bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.detokenizer import Decode, Detokenizer, StopMatcher
from coordinator.events import Event, TokensEvent
from coordinator.stage_messages import TokenRun
from core.sequence import FinishReason, TokenLogprobs

_MAX_EVENT_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class OutputToken:
    index: int
    token_id: int
    logprobs: TokenLogprobs | None = None
    finish: FinishReason | None = None


class TokenOrder:
    """Two instances report one answer; their streams may overtake each other."""

    def __init__(self) -> None:
        self.next_index = 0
        self._early: dict[int, OutputToken] = {}

    def push(self, run: TokenRun) -> list[OutputToken]:
        """The tokens that are next in order now; known indices are dropped."""
        last = len(run.token_ids) - 1
        for offset, token_id in enumerate(run.token_ids):
            index = run.first_index + offset
            if index >= self.next_index:
                logprobs = run.logprobs[offset] if run.logprobs else None
                finish = run.finish if offset == last else None
                self._early.setdefault(index, OutputToken(index, token_id, logprobs, finish))
        ready = []
        while (token := self._early.pop(self.next_index, None)) is not None:
            ready.append(token)
            self.next_index += 1
        return ready

    def restart(self) -> None:
        """A new attempt begins: what came early from the last one is void."""
        self._early.clear()

    @property
    def num_early(self) -> int:
        return len(self._early)


class EventStream:
    """Between the dispatcher and one client; tokens a slow reader has not taken merge into one event.

    So its size is bounded by the answer's length, whatever the reader does.
    """

    def __init__(self) -> None:
        self._tokens: list[OutputToken] = []
        self._texts: list[str] = []
        self._last: Event | Exception | None = None
        self._ready = asyncio.Event()

    def push(self, tokens: list[OutputToken], texts: Sequence[str]) -> None:
        """`texts`: what each of the tokens completes."""
        self._tokens += tokens
        self._texts += texts
        self._ready.set()

    def close(self, last: Event | Exception) -> None:
        """The last event, or the error that ends the stream; later ones are dropped."""
        if self._last is None:
            self._last = last
            self._ready.set()

    async def next(self, most_tokens: int = _MAX_EVENT_TOKENS) -> Event | None:
        """The next event, None after the last. Raises what `close` was given to raise."""
        await self._ready.wait()
        if self._tokens:
            return self._take_tokens(most_tokens)
        last, self._last = self._last, None
        if last is None:
            return None
        if isinstance(last, Exception):
            raise last
        return last

    def _take_tokens(self, most: int) -> TokensEvent:
        taken, self._tokens = self._tokens[:most], self._tokens[most:]
        texts, self._texts = self._texts[:most], self._texts[most:]
        if not self._tokens and self._last is None:
            self._ready.clear()
        return TokensEvent(
            first_index=taken[0].index,
            token_ids=tuple(token.token_id for token in taken),
            text="".join(texts),
            logprobs=tuple(token.logprobs for token in taken if token.logprobs is not None),
        )


class RequestOutput:
    """One request's answer so far."""

    def __init__(
        self, decode: Decode, stop_strings: tuple[str, ...], hidden_token_ids: frozenset[int]
    ) -> None:
        self.stream = EventStream()
        self.token_ids: list[int] = []
        self.finish: FinishReason | None = None
        self._order = TokenOrder()
        self._detokenizer = Detokenizer(decode)
        self._stops = StopMatcher(stop_strings)
        self._hidden = hidden_token_ids  # end the answer and are not shown as text

    @property
    def has_gap(self) -> bool:
        """Whether later tokens are here than the next."""
        return self._order.num_early > 0

    @property
    def stop_string(self) -> str:
        return self._stops.matched or ""

    def restart(self) -> None:
        self._order.restart()

    def push(self, run: TokenRun) -> int:
        """Takes a run in; the number of tokens that went to the client. Sets `finish` at the end."""
        shown: list[OutputToken] = []
        texts: list[str] = []
        for token in self._order.push(run):
            if self.finish is not None:
                break
            shown.append(token)
            texts.append(self._text_of(token))
            self._note_end(token)
        if shown:
            if self.finish is not None:
                texts[-1] += self._flush()
            self.token_ids += [token.token_id for token in shown]
            self.stream.push(shown, texts)
        return len(shown)

    def _text_of(self, token: OutputToken) -> str:
        if token.finish is FinishReason.STOP and token.token_id in self._hidden:
            return ""
        return self._stops.push(self._detokenizer.push(token.token_id))

    def _note_end(self, token: OutputToken) -> None:
        self.finish = FinishReason.STOP if self._stops.matched is not None else token.finish

    def _flush(self) -> str:
        if self._stops.matched is not None:
            return ""
        text = self._stops.push(self._detokenizer.flush())
        if self._stops.matched is not None:
            self.finish = FinishReason.STOP
            return text
        return text + self._stops.flush()
