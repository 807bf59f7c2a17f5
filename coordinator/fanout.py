"""From the stages' token runs to one client's stream: in order, each index once, bounded."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Iterable, Sequence

from coordinator.detokenizer import Decode, Detokenizer, StopMatcher, WholeText, no_whole_text
from coordinator.events import MOST_EVENT_TOKENS, Event, TokensEvent
from coordinator.listening.turns import Turns
from coordinator.stage_messages import TokenRun
from core.sequence import FinishReason, TokenLogprobs

# A token's id, the text it completes, and its log probabilities. No record, as one is made for every token.
ShownToken = tuple[int, str, TokenLogprobs | None]

_numbers = itertools.count()


class TokenOrder:
    """Two instances report one answer; their streams may overtake each other."""

    def __init__(self) -> None:
        self.next_index = 0
        self._early: dict[int, TokenRun] = {}  # of one token each

    def push(self, run: TokenRun) -> Sequence[TokenRun]:
        """The runs that are next in order now; known indices are dropped."""
        if run.first_index == self.next_index and not self._early:
            self.next_index += len(run.token_ids)
            return (run,)
        for token in _tokens_of(run):
            if token.first_index >= self.next_index:
                self._early.setdefault(token.first_index, token)
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


def _tokens_of(run: TokenRun) -> Iterable[TokenRun]:
    """A run for each token; the last has the finish."""
    last = len(run.token_ids) - 1
    for offset, token_id in enumerate(run.token_ids):
        yield run._replace(
            first_index=run.first_index + offset,
            token_ids=(token_id,),
            logprobs=run.logprobs[offset : offset + 1],
            finish=run.finish if offset == last else None,
        )


class EventStream:
    """Between the dispatcher and one client; tokens a slow reader has not taken merge, up to
    MOST_EVENT_TOKENS in an event.

    So its size is bounded by the answer's length, whatever the reader does. `turns`, which all streams share,
    say when it may be read; None: always. One task reads.
    """

    def __init__(self, turns: Turns | None = None) -> None:
        self._turns = turns
        self._tokens: deque[ShownToken] = deque()
        self._first_index = 0  # of these
        self._last: Event | Exception | None = None
        self._number = next(_numbers)
        self._has_asked = False  # for its turn, which makes it ready
        self._is_ready = False  # until all is taken
        self._reader: asyncio.Future[None] | None = None  # waits until it is ready

    def push(self, tokens: Iterable[ShownToken]) -> None:
        """The tokens that are next in order."""
        self._tokens += tokens
        if not self._has_asked:
            self._ask()

    def close(self, last: Event | Exception) -> None:
        """The last event, or the error that ends the stream; later ones are dropped."""
        if self._last is None:
            self._last = last
            if not self._has_asked:
                self._ask()

    async def next(self, most_tokens: int = MOST_EVENT_TOKENS) -> Event | None:
        """The next event, None after the last. Raises what `close` was given to raise."""
        if not self._is_ready:
            await self._until_ready()
        if self._tokens:
            return self._take_tokens(most_tokens)
        last, self._last = self._last, None
        if isinstance(last, Exception):
            raise last
        return last

    async def _until_ready(self) -> None:
        """Its turn, if it had one, is over: all that was there is written."""
        if self._turns is not None:
            self._turns.done(self._number)
        if not self._is_ready:
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader

    def _ask(self) -> None:
        self._has_asked = True
        if self._turns is None:
            self._wake()
        else:
            self._turns.ask(self._number, self._wake)

    def _wake(self) -> None:
        self._is_ready = True
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _take_tokens(self, most: int) -> TokensEvent:
        first_index, count = self._first_index, min(most, len(self._tokens))
        token_ids, texts, logprobs = zip(*[self._tokens.popleft() for _ in range(count)], strict=True)
        self._first_index += count
        if not self._tokens and self._last is None:
            self._is_ready = self._has_asked = False
        return TokensEvent(first_index, token_ids, "".join(texts), tuple(filter(None, logprobs)))


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
        shown: list[ShownToken] = []
        for ready in self._order.push(run):
            self._show(ready, shown)
        if shown:
            self.stream.push(shown)
        return len(shown)

    def _show(self, run: TokenRun, shown: list[ShownToken]) -> None:
        last = len(run.token_ids) - 1
        for offset, token_id in enumerate(run.token_ids):
            if self.finish is not None:
                return
            text = self._text_of(token_id, run.finish if offset == last else None)
            self.token_ids.append(token_id)
            shown.append((token_id, text, run.logprobs[offset] if run.logprobs else None))

    def _text_of(self, token_id: int, finish: FinishReason | None) -> str:
        """What it completes; with the end, which this notes, all that was held back."""
        text = ""
        if finish is not FinishReason.STOP or token_id not in self._hidden:
            text = self._stops.push(self._detokenizer.push(token_id))
        self.finish = finish if self._stops.matched is None else FinishReason.STOP
        return text if self.finish is None else text + self._flush()

    def _flush(self) -> str:
        if self._stops.matched is not None:
            return ""
        text = self._stops.push(self._detokenizer.flush())
        if self._stops.matched is not None:
            self.finish = FinishReason.STOP
            return text
        return text + self._stops.flush()
