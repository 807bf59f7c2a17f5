"""Who gives way when blocks run short."""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter

from simulator.job import Job

by_order = attrgetter("order")


def latest(decodes: Iterable[Job], prefills: Iterable[Job]) -> Job:
    """The latest arrival that holds blocks; not a hand-over, whose chunks are on their way to a peer."""
    candidates = [*decodes]
    candidates += [job for job in prefills if job.blocks and (job.is_local or job.is_recomputing)]
    return max(candidates, key=by_order)
