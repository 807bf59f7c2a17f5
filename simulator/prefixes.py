"""Prefixes that a dispatched request takes from caches: of its prefill instance, or pulled from another."""

from __future__ import annotations

from collections.abc import Mapping

from coordinator.policy.view import Placement
from simulator.events import Events
from simulator.instance import Instance
from simulator.job import Job
from simulator.links import Links
from simulator.unified import UnifiedCache

_Pull = tuple[Job, int, int, int]  # job, attempt, tokens that its instance has, and will have


class Prefixes:
    """The instance looks into its own cache first; where the named one has more, that is pulled, and the
    prompt waits for it without holding up others. Each of the two goes to its cache between two turns.
    """

    def __init__(
        self,
        events: Events,
        links: Links,
        instances: Mapping[str, Instance],
        caches: UnifiedCache,
        *,
        kv_bytes_per_token: int,
    ) -> None:
        self._events = events
        self._links = links
        self._instances = instances
        self._caches = caches
        self._kv_bytes_per_token = kv_bytes_per_token

    def begin(self, job: Job, placement: Placement) -> None:
        """As the dispatch arrives at its prefill instance."""
        own = self._caches.take_prefix(placement.prefill, job)
        source, there = placement.prefix, 0
        if source is not None and source != placement.prefill:
            there = self._caches.take_prefix(source, job)
        job.prefix_tokens = min(max(own, there), job.target_tokens - 1)
        self._caches.counts.prefix_hit_tokens += job.prefix_tokens
        if source is not None and there > own:
            self._caches.counts.pulled_bytes += (there - own) * self._kv_bytes_per_token
            job.is_pulling = True
            pull = job, job.attempt, own, there
            self._instances[placement.prefill].call(lambda: self._ask(pull))
        else:
            self._go_on(job)

    def _ask(self, pull: _Pull) -> None:
        placement = _placement(pull)
        if placement is not None and placement.prefix is not None:
            self._instances[placement.prefix].call(lambda: self._push(pull))

    def _push(self, pull: _Pull) -> None:
        _, _, own, there = pull
        placement = _placement(pull)
        if placement is not None and placement.prefix is not None:
            from_, to = self._instances[placement.prefix], self._instances[placement.prefill]
            there_s = self._links.kv_s(from_, to, self._events.time_s, there - own)
            self._events.at(there_s, self._pulled, pull)

    def _pulled(self, pull: _Pull) -> None:
        job, _, _, num_tokens = pull
        placement = _placement(pull)
        if placement is None:
            return
        self._caches.put_pulled(placement.prefill, job, num_tokens)
        job.is_pulling = False
        self._go_on(job)
        self._instances[placement.prefill].wake()

    def _go_on(self, job: Job) -> None:
        """After what is there."""
        job.computed = job.unsent_tokens = max(job.computed, job.prefix_tokens)


def _placement(pull: _Pull) -> Placement | None:
    """None where it is dispatched no more, or again."""
    job, attempt, *_ = pull
    return None if job.is_outdated(attempt) else job.work.placement
