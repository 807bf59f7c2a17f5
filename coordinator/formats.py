"""Whether output formats compile, found before a request is accepted and off the event loop."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from coordinator.errors import InvalidFieldError, OverloadedError
from coordinator.fair_queue import FairQueue
from core.grammars import FormatError, Grammars
from core.output_format import OutputFormat

MOST_PER_TENANT = 32
_RETRY_AFTER_S = 1.0


class Formats:
    """One is compiled at a time, as compiling has a core to itself: of each tenant in turn.

    So a tenant's first one waits for the one under way and for one of each other tenant at most, however
    many these have. What is compiled already waits for nobody, and what many want is compiled once.
    """

    def __init__(self, grammars: Grammars) -> None:
        self._grammars = grammars
        self._queue: FairQueue[_Job] = FairQueue()
        self._running: _Job | None = None
        self._working: asyncio.Task[None] | None = None

    async def check(self, tenant: str, form: OutputFormat) -> None:
        """Raises InvalidFieldError naming the format's field, OverloadedError where too many wait."""
        if self._grammars.recall(form):
            return
        job = self._join(tenant, form)
        job.num_waiting += 1
        try:
            error = await asyncio.shield(job.verdict)
        finally:
            job.num_waiting -= 1
            if not job.num_waiting and job in self._queue.of(tenant):
                self._queue.remove(tenant, job)
        if isinstance(error, FormatError):
            raise InvalidFieldError(form.field, str(error))
        if error is not None:
            raise error

    @property
    def num_waiting(self) -> int:
        """Formats, not those who want them."""
        return len(self._queue)

    def _join(self, tenant: str, form: OutputFormat) -> _Job:
        """Raises OverloadedError."""
        if self._running is not None and self._running.form == form:
            return self._running
        waiting = self._queue.of(tenant)
        known = next((job for job in waiting if job.form == form), None)
        if known is not None:
            return known
        if len(waiting) >= MOST_PER_TENANT:
            reason = f"{len(waiting)} formats of this tenant wait to be compiled"
            raise OverloadedError(reason, _RETRY_AFTER_S, "formats_per_tenant")
        job = _Job(form)
        self._queue.push(tenant, job)
        if self._working is None:
            self._working = asyncio.create_task(self._work())
        return job

    async def _work(self) -> None:
        while self._queue:
            job = self._running = self._queue.pop()
            error = await asyncio.to_thread(self._compile, job.form)
            self._running = None
            for tenant, other in self._queue.everybody():
                if other.form == job.form:
                    self._queue.remove(tenant, other)
                    other.verdict.set_result(error)
            job.verdict.set_result(error)
        self._working = None

    def _compile(self, form: OutputFormat) -> Exception | None:
        """What went wrong."""
        try:
            self._grammars.matcher(form)
        except Exception as error:
            return error
        return None


@dataclass(slots=True, eq=False)
class _Job:
    form: OutputFormat
    verdict: asyncio.Future[Exception | None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    num_waiting: int = 0  # who are told of it
