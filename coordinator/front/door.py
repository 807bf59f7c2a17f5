"""The coordinator's door from outside: who may enter is asked there, and every call goes there."""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from coordinator.calls import GenerateCall
from coordinator.errors import ServiceError, UnauthenticatedError, UnavailableError
from coordinator.events import Emit
from coordinator.front.admissions import Admissions
from coordinator.front.caller import Metadata, proof_of
from coordinator.front.failures import RETRY_AFTER_S
from coordinator.front.link import Link
from coordinator.front.metrics import FrontMetrics
from coordinator.front.pictures_once import PicturesOnce
from coordinator.front.reach import Reach
from coordinator.front.upstream import Upstream
from coordinator.openai.served import Visit
from coordinator.state import ServedDescription
from core.clock import Clock

log = logging.getLogger(__name__)

_RETRY_S = 0.5


class RemoteDoor:
    """`enter` is a `served.Enter`; `watch_forever` runs beside it, `close` comes last.

    A link serves until the coordinator is lost. The next one is made of the files as they are then, and knows
    nothing of what the last one was told: another model may be served.
    """

    def __init__(self, reach: Reach, clock: Clock, metrics: FrontMetrics) -> None:
        self._reach = reach
        self._clock = clock
        self._metrics = metrics
        self._admissions = Admissions(clock)
        self._link = Link(reach)
        self._upstream: Upstream | None = None  # None: nobody knows yet
        self._calls: set[asyncio.Task[None]] = set()
        self._is_closed = False

    @property
    def is_ready(self) -> bool:
        return self._upstream is Upstream.READY

    @property
    def num_calls(self) -> int:
        """Calls under way."""
        return len(self._calls)

    async def enter(self, authorization: str | None, _peer: str) -> Visit:
        """Raises what the coordinator says to who must not enter, and where it does not answer."""
        link, proof = self._link, proof_of(authorization)
        description = await self._describe(proof)
        generate = PicturesOnce(partial(self._generate, link, proof)).generate
        return Visit(description, link.tokens.texts, generate)

    async def is_open(self) -> bool:
        """Whether the coordinator lets in who proves nothing. Raises UnavailableError."""
        admissions = self._admissions
        if admissions.wants_keys:
            return False
        try:
            await self._describe(())
        except UnauthenticatedError:
            admissions.wants_keys = True
        return not admissions.wants_keys

    async def watch_forever(self) -> None:
        """Whether it is ready, and a new link whenever the coordinator was lost."""
        while True:
            try:
                async for is_ready in self._link.watch():
                    if is_ready:
                        self._note(Upstream.READY, "every stage is there")
                    else:
                        self._note(Upstream.INCOMPLETE, "a stage is missing")
            except ServiceError as error:
                self._note(Upstream.LOST, str(error))
            self._note(Upstream.LOST, "is gone")
            await asyncio.sleep(_RETRY_S)
            await self._renew()

    def end_calls(self) -> None:
        """Calls under way, and those to come, end with UnavailableError."""
        self._is_closed = True
        for call in self._calls:
            call.cancel()

    async def close(self) -> None:
        """Once no call is under way."""
        await self._link.retire()

    async def _describe(self, proof: Metadata) -> ServedDescription:
        """Raises what the coordinator says to who proves this."""
        link, admissions = self._link, self._admissions
        description = admissions.find(proof)
        if description is None:
            description = await link.describe(proof)
            admissions.note(proof, description)
        return description

    def _note(self, upstream: Upstream, reason: str) -> None:
        if upstream is not self._upstream:
            level = logging.INFO if upstream is Upstream.READY else logging.WARNING
            log.log(level, "%s: %s", self._reach.address, reason)
            self._metrics.note_upstream(upstream)
        self._upstream = upstream

    async def _renew(self) -> None:
        old, self._link = self._link, Link(self._reach)
        self._admissions = Admissions(self._clock)
        await old.retire()

    async def _generate(self, link: Link, proof: Metadata, call: GenerateCall, emit: Emit) -> None:
        if self._is_closed:
            raise _closing()
        running = asyncio.create_task(link.generate(proof, call, emit))
        self._calls.add(running)
        try:
            await asyncio.wait((running,))
            if running.cancelled() and self._is_closed:
                raise _closing()
            running.result()
        except ServiceError as error:
            self._metrics.note_failure(error)
            raise
        finally:
            self._calls.discard(running)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


def _closing() -> UnavailableError:
    return UnavailableError("this door is shutting down", RETRY_AFTER_S)
