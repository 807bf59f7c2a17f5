"""All answers of resumable requests: made while clients come and go, kept for a while, then forgotten."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from itertools import accumulate

from coordinator.config import ResumeLimits
from coordinator.errors import (
    AlreadyRunningError,
    CancelledError,
    InternalFailureError,
    NotFoundError,
    ServiceError,
)
from coordinator.events import Emit
from coordinator.resuming.answer import Answer, Reader

log = logging.getLogger(__name__)

Produce = Callable[[Emit], Awaitable[None]]


class KeptAnswer:
    """An answer, whose it is, and what makes it and ends it."""

    def __init__(self, request_id: str, tenant: str, keep_s: float, max_tokens: int) -> None:
        self.request_id = request_id
        self.tenant = tenant
        self.keep_s = keep_s
        self.answer = Answer(max_tokens)
        self.work: asyncio.Task[None] | None = None
        self.expiry: asyncio.TimerHandle | None = None  # runs while nobody reads

    def wait_no_more(self) -> None:
        if self.expiry is not None:
            self.expiry.cancel()
            self.expiry = None


class Answers:
    """Of one coordinator, on its loop. An answer is here from `begin` until it expires or is cancelled."""

    def __init__(self, limits: ResumeLimits) -> None:
        self._limits = limits
        self._kept: dict[str, KeptAnswer] = {}
        self._ended: dict[str, KeptAnswer] = {}  # of these, in the order of their ends
        self._works: set[asyncio.Task[None]] = set()  # those of dropped answers too, until they are done

    def __len__(self) -> int:
        return len(self._kept)

    def make_free(self, request_id: str, tenant: str) -> None:
        """Before the id is used: the tenant's failed answer gives way, for another try.

        Raises AlreadyRunningError if any other answer of this id is kept.
        """
        kept = self._kept.get(request_id)
        if kept is None:
            return
        if kept.tenant != tenant or kept.answer.has_reader or not kept.answer.has_failed:
            raise AlreadyRunningError("request_id", f"{request_id!r} is running, or its answer is kept")
        self._drop(kept)

    async def begin(self, request_id: str, tenant: str, keep_s: float, produce: Produce, emit: Emit) -> None:
        """Has the answer produced whether it is read or not, and is its first reader.

        `produce` gives one token an event. Raises what it raises, and what `Answer.read` does; an answer that
        fails before Accepted is not kept.
        """
        kept = KeptAnswer(request_id, tenant, keep_s, self._limits.tokens)
        self._kept[request_id] = kept
        reader = kept.answer.attach(0)
        kept.work = asyncio.create_task(self._produce(kept, produce))
        self._works.add(kept.work)
        kept.work.add_done_callback(self._works.discard)
        await self._follow(kept, reader, emit)

    async def resume(self, request_id: str, tenant: str, next_index: int, emit: Emit) -> None:
        """Reads an answer from this index on, in the place of its reader.

        Raises NotFoundError, OutOfRangeError, and what `Answer.read` does.
        """
        kept = self._of(request_id, tenant)
        reader = kept.answer.attach(next_index)
        kept.wait_no_more()
        await self._follow(kept, reader, emit)

    def cancel(self, request_id: str, tenant: str) -> None:
        """Stops the work and forgets the answer. Raises NotFoundError."""
        kept = self._of(request_id, tenant)
        kept.answer.fail(CancelledError("the request was cancelled"))
        self._drop(kept)

    async def close(self) -> None:
        """Drops all; returns when no work is left."""
        for kept in tuple(self._kept.values()):
            self._drop(kept)
        await asyncio.gather(*self._works, return_exceptions=True)

    def check_integrity(self) -> None:
        """Raises AssertionError if an answer is kept that nobody reads and nothing ends, or too many are."""
        for request_id, kept in self._kept.items():
            kept.answer.check_integrity()
            is_awaited = kept.answer.has_reader != (kept.expiry is not None)
            assert is_awaited, f"{request_id}: has neither reader nor expiry, or both"
            assert kept.work is not None, f"{request_id}: has no work"
            assert kept.work in self._works or request_id in self._ended, f"{request_id}: does not end"
        assert self._ended.keys() <= self._kept.keys(), "ended: unknown answers"
        assert not self._surplus(), "more ended answers are kept than may be"

    def _of(self, request_id: str, tenant: str) -> KeptAnswer:
        kept = self._kept.get(request_id)
        if kept is None or kept.tenant != tenant:
            raise NotFoundError("request_id", f"no answer of {request_id!r} is kept for tenant {tenant!r}")
        return kept

    async def _follow(self, kept: KeptAnswer, reader: Reader, emit: Emit) -> None:
        try:
            await kept.answer.read(reader, emit)
        finally:
            kept.answer.detach(reader)
            self._await_reader(kept)

    async def _produce(self, kept: KeptAnswer, produce: Produce) -> None:
        try:
            await produce(kept.answer.take)
        except ServiceError as error:
            kept.answer.fail(error)
        except Exception as error:
            log.exception("request %s: failed", kept.request_id)
            kept.answer.fail(InternalFailureError(f"{type(error).__name__}: {error}"))
        if self._has(kept):
            self._note_end(kept)

    def _note_end(self, kept: KeptAnswer) -> None:
        if not kept.answer.is_accepted:
            self._drop(kept)
            return
        self._ended[kept.request_id] = kept
        kept.wait_no_more()
        self._await_reader(kept)
        self._drop_oldest()

    def _await_reader(self, kept: KeptAnswer) -> None:
        """Where nobody reads, the time that it is kept runs."""
        if kept.answer.has_reader or kept.expiry is not None or not self._has(kept):
            return
        kept.expiry = asyncio.get_running_loop().call_later(kept.keep_s, self._drop, kept)
        self._drop_oldest()

    def _drop_oldest(self) -> None:
        for kept in self._surplus():
            self._drop(kept)

    def _surplus(self) -> list[KeptAnswer]:
        """Of the ended answers that nobody reads, those that the newest leave no room for."""
        unread = [kept for kept in self._ended.values() if not kept.answer.has_reader]
        totals = accumulate(kept.answer.num_kept for kept in reversed(unread))
        num_fitting = sum(total <= self._limits.total_tokens for total in totals)
        return unread[: max(0, len(unread) - min(num_fitting, self._limits.answers))]

    def _has(self, kept: KeptAnswer) -> bool:
        """Whether it is kept still; its id may have been used again."""
        return self._kept.get(kept.request_id) is kept

    def _drop(self, kept: KeptAnswer) -> None:
        if not self._has(kept):
            return
        kept.wait_no_more()
        del self._kept[kept.request_id]
        self._ended.pop(kept.request_id, None)
        if kept.work is not None and kept.work is not asyncio.current_task():
            kept.work.cancel()
