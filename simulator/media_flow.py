"""A request's pictures, from their dispatch until their embeddings are where it is prefilled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from coordinator.policy.books import Books
from coordinator.policy.scheduler import Scheduler
from coordinator.policy.view import Placement
from core.lifecycle import RequestState
from simulator.config import ClusterConfig
from simulator.events import Events
from simulator.instance import Instance
from simulator.job import Job
from simulator.links import Links
from simulator.media_workers import MediaWorkers, Ticket
from simulator.unified import UnifiedCache


class MediaFlow:
    """Decoded on a host worker of the encoder, queued there, encoded, sent; or from a cache at once."""

    def __init__(
        self,
        config: ClusterConfig,
        events: Events,
        books: Books,
        links: Links,
        scheduler: Scheduler,
        *,
        instances: Mapping[str, Instance],
        caches: UnifiedCache | None,
        place: Callable[[], None],
    ) -> None:
        self._config = config
        self._events = events
        self._books = books
        self._links = links
        self._scheduler = scheduler
        self._instances = instances
        self._caches = caches
        self._place = place
        self._workers = {
            name: MediaWorkers(
                config.media_workers,
                config.profile.encode,
                config.encode_order,
                events,
                self._preprocessed,
                slice_s=config.encode_slice_s,
                keeps_one=config.discipline != "whole",
            )
            for name in instances
        }
        self.num_preprocessed = 0  # starts and ends of picture decoding

    def start(self, job: Job, placement: Placement) -> None:
        """Items in the prefix need nothing; if that was not there after all, the prefill instance says so,
        and they are sent for.
        """
        for index, encoder in enumerate(placement.encode):
            if index not in placement.skipped:
                self._start(self._instances[encoder], job, index)
            elif self._is_in_prefix(job, index):
                self._skip(job, index)
            else:
                asked_s = self._events.time_s + 2 * self._config.control_s
                self._events.at(asked_s, self._needed, (job, index, job.attempt))

    def encoded(self, encoder: Instance, job: Job, index: int, seconds: float) -> None:
        self._scheduler.note_encode(encoder.instance_id, job.work.media[index].num_tokens, seconds)
        self._send(encoder, job, index)
        if self._caches is not None:
            for waiting, item, attempt in self._caches.made(encoder.instance_id, job, index):
                if not waiting.is_outdated(attempt):
                    self._send(encoder, waiting, item)

    def _start(self, encoder: Instance, job: Job, index: int) -> None:
        ticket = (job, index, job.attempt)
        if self._is_cached(encoder, ticket):
            job.preprocessed += 1
            self._send(encoder, job, index)
            return
        if self._caches is not None and self._caches.awaits(encoder.instance_id, ticket):
            self._caches.counts.encoder_hits += 1
            return
        if self._config.encoding == "inline":
            encoder.add_encode(job, index, self._events.time_s)
            return
        self.num_preprocessed += 2
        self._workers[encoder.instance_id].add(ticket)

    def _is_cached(self, encoder: Instance, ticket: Ticket) -> bool:
        job, index, _ = ticket
        if self._caches is None:
            return encoder.encoder_cache.take(job.request.pictures[index].digest)
        is_there = self._caches.take_embedding(encoder.instance_id, ticket)
        self._caches.counts.encoder_hits += is_there
        return is_there

    def _preprocessed(self, ticket: Ticket, asked_s: float) -> None:
        job, index, attempt = ticket
        if job.is_outdated(attempt):
            return
        placement = _placement(job)
        if self._config.discipline == "whole":
            job.preprocessed += 1
            self._instances[placement.prefill].wake()
        else:
            self._instances[placement.encode[index]].add_encode(job, index, asked_s)

    def _send(self, encoder: Instance, job: Job, index: int) -> None:
        ticket = (job, index, job.attempt)
        prefill = self._instances[_placement(job).prefill]
        if prefill is encoder:
            self._arrived(ticket)
            return
        num_tokens = job.work.media[index].num_tokens
        there_s = self._links.embedding_s(encoder, prefill, self._events.time_s, num_tokens)
        self._events.at(there_s, self._arrived, ticket)

    def _arrived(self, ticket: Ticket) -> None:
        job, index, attempt = ticket
        if job.is_outdated(attempt):
            return
        self._note(job, index)
        self._place()  # an encoder has room again

    def _note(self, job: Job, index: int) -> None:
        work, ready = job.work, job.ready
        work.encoded.add(index)
        self._books.note(work)
        if len(work.encoded) == len(work.media):
            job.encoded_s = self._events.time_s
            job.go(RequestState.PREFILLING)
            job.ready = job.target_tokens
        elif self._config.encoding == "pipelined" and not self._config.profile.is_simulation_only:
            job.ready = _leading_tokens(job)
        if job.ready > ready:
            self._instances[_placement(job).prefill].wake()

    # of a cached prefix

    def _is_in_prefix(self, job: Job, index: int) -> bool:
        end_token = job.work.media[index].end_token
        return end_token is not None and end_token <= job.prefix_tokens

    def _skip(self, job: Job, index: int) -> None:
        assert self._caches is not None, "nothing is skipped without caches"
        self._caches.counts.skipped_encodes += 1
        self._note(job, index)

    def _needed(self, ticket: Ticket) -> None:
        job, index, attempt = ticket
        if job.is_outdated(attempt):
            return
        placement = _placement(job)
        job.work.placement = replace(placement, skipped=placement.skipped - {index})
        self._books.note(job.work)
        self._start(self._instances[placement.encode[index]], job, index)


def with_one_encoder(placement: Placement) -> Placement:
    """All that has to be encoded goes to one instance: where it is prefilled, if that encodes any of it."""
    spared = placement.held | placement.skipped
    needed = [name for index, name in enumerate(placement.encode) if index not in spared]
    if len(set(needed)) < 2:
        return placement
    one = placement.prefill if placement.prefill in needed else needed[0]
    encode = tuple(name if index in spared else one for index, name in enumerate(placement.encode))
    return replace(placement, encode=encode)


def _placement(job: Job) -> Placement:
    placement = job.work.placement
    assert placement is not None, "only of what was dispatched"
    return placement


def _leading_tokens(job: Job) -> int:
    """Of the pictures at the head of the prompt whose embeddings are there."""
    tokens = 0
    for index, item in enumerate(job.work.media):
        if index not in job.work.encoded:
            break
        tokens += item.num_tokens
    return tokens
