"""Formats that wait to be compiled."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from core.fair_queue import FairQueue
from core.grammars import CompiledFormat, Grammars
from core.output_format import OutputFormat


class TooManyFormatsError(Exception):
    """The tenant has as many waiting as it may."""


class FormatTurns:
    """One is compiled at a time, as compiling has a core to itself: of each tenant in turn.

    So a tenant's first one waits for the one under way and for one of each other tenant at most, however
    many these have. What is compiled already waits for nobody, and what many want is compiled once.
    """

    def __init__(self, grammars: Grammars) -> None:
        self._grammars = grammars
        self._queue: FairQueue[_Job] = FairQueue()
        self._running: _Job | None = None
        self._working: asyncio.Task[None] | None = None

    async def compile(
        self, tenant: str, form: OutputFormat, most_waiting: int | None = None
    ) -> CompiledFormat:
        """Raises FormatError, TooManyFormatsError where `most_waiting` others of the tenant wait."""
        kept = self._grammars.recall(form, tenant)
        if kept is not None:
            return kept
        job = self._join(tenant, form, most_waiting)
        job.num_waiting += 1
        try:
            verdict = await asyncio.shield(job.verdict)
        finally:
            job.num_waiting -= 1
            if not job.num_waiting and job in self._queue.of(tenant):
                self._queue.remove(tenant, job)
        if isinstance(verdict, Exception):
            raise verdict
        return verdict

    @property
    def num_waiting(self) -> int:
        """Formats, not those who want them."""
        return len(self._queue)

    def _join(self, tenant: str, form: OutputFormat, most_waiting: int | None) -> _Job:
        if self._running is not None and self._running.form == form:
            return self._running
        waiting = self._queue.of(tenant)
        known = next((job for job in waiting if job.form == form), None)
        if known is not None:
            return known
        if most_waiting is not None and len(waiting) >= most_waiting:
            raise TooManyFormatsError(f"{len(waiting)} formats of this tenant wait to be compiled")
        job = _Job(tenant, form)
        self._queue.push(tenant, job)
        if self._working is None:
            self._working = asyncio.create_task(self._work())
        return job

    async def _work(self) -> None:
        while self._queue:
            job = self._running = self._queue.pop()
            verdict = await asyncio.to_thread(self._compile, job)
            self._running = None
            for tenant, other in self._queue.everybody():
                if other.form == job.form:
                    self._queue.remove(tenant, other)
                    other.verdict.set_result(verdict)
            job.verdict.set_result(verdict)
        self._working = None

    def _compile(self, job: _Job) -> CompiledFormat | Exception:
        """Or what went wrong."""
        try:
            return self._grammars.compile(job.form, job.tenant)
        except Exception as error:
            return error


@dataclass(slots=True, eq=False)
class _Job:
    tenant: str
    form: OutputFormat
    verdict: asyncio.Future[CompiledFormat | Exception] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    num_waiting: int = 0  # who are told of it
