"""One resumable request's answer: what is kept of it, and the one client that reads it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from coordinator.errors import OutOfRangeError, ServiceError, TakenOverError
from coordinator.events import MOST_EVENT_TOKENS, AcceptedEvent, Emit, Event, FinishedEvent, TokensEvent


class Reader:
    """How far one client is. Made by `Answer.attach`."""

    def __init__(self, next_index: int) -> None:
        self.next_index = next_index
        self.woken = asyncio.Event()


class Answer:
    """Grows by `take` and `fail`, is read by `attach`, `read` and `detach`; bounded by `max_tokens`.

        dropped | kept ............................ | to come
                first_index     reader.next_index   next_index

    Only a reader that is behind keeps more than `max_tokens` here.
    """

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._accepted: AcceptedEvent | None = None
        self._tokens: deque[TokensEvent] = deque()  # of one token each
        self._first_index = 0
        self._last: FinishedEvent | ServiceError | None = None
        self._reader: Reader | None = None

    @property
    def is_accepted(self) -> bool:
        return self._accepted is not None

    @property
    def is_ended(self) -> bool:
        return self._last is not None

    @property
    def has_failed(self) -> bool:
        return isinstance(self._last, ServiceError)

    @property
    def has_reader(self) -> bool:
        return self._reader is not None

    @property
    def num_kept(self) -> int:
        """Tokens that are kept."""
        return len(self._tokens)

    @property
    def next_index(self) -> int:
        """Of the token that comes next."""
        return self._first_index + len(self._tokens)

    async def take(self, event: Event) -> None:
        """The next event of the request; tokens come one at a time. Never waits."""
        match event:
            case AcceptedEvent():
                self._accepted = event
            case TokensEvent():
                assert len(event.token_ids) == 1, "each token is kept with its own text"
                assert event.first_index == self.next_index, f"{event.first_index}, not {self.next_index}"
                self._tokens.append(event)
                self._drop_oldest()
            case FinishedEvent():
                self._last = event
        self._wake()

    def fail(self, error: ServiceError) -> None:
        """The request ended with this; what ended already stays as it ended."""
        if self._last is None:
            self._last = error
            self._wake()

    def attach(self, next_index: int) -> Reader:
        """A reader from this index on, in the place of any other. Raises OutOfRangeError."""
        if not self._first_index <= next_index <= self.next_index:
            raise OutOfRangeError(
                "next_index", f"{next_index} is not between {self._first_index} and {self.next_index}"
            )
        self._wake()
        self._reader = Reader(next_index)
        return self._reader

    def detach(self, reader: Reader) -> None:
        """Nothing where another has taken over."""
        if self._reader is reader:
            self._reader = None
            self._drop_oldest()

    async def read(self, reader: Reader, emit: Emit) -> None:
        """Hands Accepted, each token once and the end to `emit`, as they come.

        Raises TakenOverError once another reader is attached, or what the request failed with.
        """
        await self._until(reader, lambda: self.is_accepted or self.is_ended)
        if self._accepted is not None:
            await emit(self._accepted)
        while await self._until(reader, lambda: self._is_behind(reader) or self.is_ended):
            if not self._is_behind(reader):
                break
            await emit(self._next_tokens(reader))
        if isinstance(self._last, ServiceError):
            raise self._last.with_traceback(None)
        assert self._last is not None
        await emit(self._last)

    def check_integrity(self) -> None:
        """Raises AssertionError if more is kept than may be, or than anybody could read."""
        unread = self.next_index if self._reader is None else self._reader.next_index
        assert self._first_index <= unread <= self.next_index, "a reader is where no tokens are"
        kept = len(self._tokens)
        assert kept <= self._max_tokens or self._first_index >= unread, f"{kept} tokens are kept"
        assert self._accepted is not None or not self._tokens, "tokens before Accepted"

    async def _until(self, reader: Reader, holds: Callable[[], bool]) -> bool:
        """True once it holds."""
        while True:
            if self._reader is not reader:
                raise TakenOverError("another call goes on with this answer")
            if holds():
                return True
            reader.woken.clear()
            await reader.woken.wait()

    def _is_behind(self, reader: Reader) -> bool:
        return reader.next_index < self.next_index

    def _next_tokens(self, reader: Reader) -> TokensEvent:
        """As many of those that are there as an event may have."""
        start = reader.next_index - self._first_index
        end = min(start + MOST_EVENT_TOKENS, len(self._tokens))
        taken = [self._tokens[place] for place in range(start, end)]
        reader.next_index += len(taken)
        self._drop_oldest()
        return TokensEvent(
            first_index=taken[0].first_index,
            token_ids=tuple(event.token_ids[0] for event in taken),
            text="".join(event.text for event in taken),
            logprobs=tuple(logprobs for event in taken for logprobs in event.logprobs),
        )

    def _drop_oldest(self) -> None:
        unread = self.next_index if self._reader is None else self._reader.next_index
        while len(self._tokens) > self._max_tokens and self._first_index < unread:
            self._tokens.popleft()
            self._first_index += 1

    def _wake(self) -> None:
        if self._reader is not None:
            self._reader.woken.set()
