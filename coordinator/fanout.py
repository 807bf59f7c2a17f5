"""From the stages' token runs to one client's stream: in order, each index once, bounded."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.detokenizer import Decode, Detokenizer, StopMatcher, WholeText, no_whole_text
from coordinator.events import Event, TokensEvent
from coordinator.listening.turns import Turns
from coordinator.stage_messages import TokenRun
from core.sequence import FinishReason, TokenLogprobs

_MAX_EVENT_TOKENS = 1024
_numbers = itertools.count()


@dataclass(slots=True)
class OutputToken:
    """Not frozen, since one is made for every token and that takes twice as long."""

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
        tokens = _tokens_of(run)
        if run.first_index == self.next_index and not self._early:
            self.next_index += len(tokens)
            return tokens
        for token in tokens:
            if token.index >= self.next_index:
                self._early.setdefault(token.index, token)
        ready = []
        while self.next_index in self._early:
            ready.append(self._early.pop(self.next_index))
            self.next_index += 1
        return ready

    def restart(self) -> None:
        """A new attempt begins: what came early from the last one is void."""
        self._early.clear()

    @property
    def num_early(self) -> int:
        return len(self._early)


def _tokens_of(run: TokenRun) -> list[OutputToken]:
    last = len(run.token_ids) - 1
    return [
        OutputToken(
            run.first_index + offset,
            token_id,
            run.logprobs[offset] if run.logprobs else None,
            run.finish if offset == last else None,
        )
        for offset, token_id in enumerate(run.token_ids)
    ]


class EventStream:
    """Between the dispatcher and one client; tokens a slow reader has not taken merge into one event.

    So its size is bounded by the answer's length, whatever the reader does. `turns`, which all streams share,
    say when it may be read; None: always.
    """

    def __init__(self, turns: Turns | None = None) -> None:
        self._turns = turns
        self._tokens: list[OutputToken] = []
        self._texts: list[str] = []
        self._last: Event | Exception | None = None
        self._number = next(_numbers)
        self._has_asked = False  # for its turn, which makes it ready
        self._has_taken = False  # in its turn, which lasts until it wants more
        self._ready = asyncio.Event()

    def push(self, tokens: list[OutputToken], texts: Sequence[str]) -> None:
        """`texts`: what each of the tokens completes."""
        self._tokens += tokens
        self._texts += texts
        self._ask()

    def close(self, last: Event | Exception) -> None:
        """The last event, or the error that ends the stream; later ones are dropped."""
        if self._last is None:
            self._last = last
            self._ask()

    async def next(self, most_tokens: int = _MAX_EVENT_TOKENS) -> Event | None:
        """The next event, None after the last. Raises what `close` was given to raise."""
        if self._turns is not None and self._has_taken:
            self._has_taken = False
            self._turns.done(self._number)
        await self._ready.wait()
        self._has_taken = True
        if self._tokens:
            return self._take_tokens(most_tokens)
        last, self._last = self._last, None
        if last is None:
            return None
        if isinstance(last, Exception):
            raise last
        return last

    def _ask(self) -> None:
        if self._has_asked:
            return
        self._has_asked = True
        if self._turns is None:
            self._ready.set()
        else:
            self._turns.ask(self._number, self._ready.set)

    def _take_tokens(self, most: int) -> TokensEvent:
        taken, self._tokens = self._tokens[:most], self._tokens[most:]
        texts, self._texts = self._texts[:most], self._texts[most:]
        if not self._tokens and self._last is None:
            self._ready.clear()
            self._has_asked = False
        return TokensEvent(
            first_index=taken[0].index,
            token_ids=tuple(token.token_id for token in taken),
            text="".join(texts),
            logprobs=tuple(token.logprobs for token in taken if token.logprobs is not None),
        )


class RequestOutput:
    """One request's answer so far."""

    def __init__(
        self,
        decode: Decode,
        stop_strings: tuple[str, ...],
        hidden_token_ids: frozenset[int],
        whole_text: WholeText = no_whole_text,
        turns: Turns | None = None,
    ) -> None:
        self.stream = EventStream(turns)
        self.token_ids: list[int] = []
        self.finish: FinishReason | None = None
        self._order = TokenOrder()
        self._detokenizer = Detokenizer(decode, whole_text)
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
