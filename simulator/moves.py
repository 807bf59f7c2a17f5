"""Decoding requests that move to another instance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from coordinator.policy.books import Books
from coordinator.policy.migration import choose_target
from coordinator.policy.view import num_blocks
from core.profile import Profile
from core.stages import Stage
from simulator.events import Events
from simulator.instance import Instance
from simulator.job import Job
from simulator.links import Links

# job, its attempt, target, tokens copied while it decoded on, blocks taken there
_Move = tuple[Job, int, Instance, int, int]


class Moves:
    """The source copies the KV while it decodes on, then the sequence stands still for the rest of it."""

    def __init__(
        self,
        profile: Profile,
        events: Events,
        books: Books,
        instances: Mapping[str, Instance],
        links: Links,
        *,
        requeue: Callable[[Job], None],
    ) -> None:
        self._profile = profile
        self._events = events
        self._books = books
        self._instances = instances
        self._links = links
        self._requeue = requeue
        self._leaving: dict[Job, _Move] = {}
        self.num_moves = 0

    def consider(self, source: Instance, job: Job) -> None:
        """Moves it if a target has room and that costs less time than waiting for its last token."""
        work = job.work
        if work.moving_to is not None or job not in source.batch.jobs:
            return
        kv_tokens = source.kv_tokens(job)
        step_s = self._profile.step.decode_step_s(source.batch.size, source.context_tokens())
        rest_s = step_s * max(1, work.reserve_tokens - source.outputs(job))
        if self._profile.kv_move.move_s(kv_tokens * self._profile.kv_bytes_per_token) >= rest_s:
            return
        players = self._books.players(Stage.DECODE, work.group)
        name = choose_target(players, source.instance_id, work.promised_tokens, work.group)
        blocks = num_blocks(kv_tokens, self._profile.block_tokens)
        if name is None or not self._instances[name].take_blocks(blocks):
            return
        target = self._instances[name]
        work.moving_to = name
        self._books.note(work)
        there_s = self._links.kv_s(source, target, self._events.time_s, kv_tokens)
        self._events.at(there_s, self._copied, (job, job.attempt, target, kv_tokens, blocks))

    def left(self, job: Job, kv_tokens: int | None) -> None:
        """The source has let it go; what it gained since the copy follows."""
        move = self._leaving.pop(job)
        _, _, target, copied, blocks = move
        more = 0 if kv_tokens is None else num_blocks(kv_tokens, self._profile.block_tokens) - blocks
        if kv_tokens is None:
            self._call_off(move)
        elif more and not target.take_blocks(more):
            self._call_off(move)
            self._requeue(job)
        else:
            source = self._instances[job.work.placement.decode]  # type: ignore[union-attr]
            there_s = self._links.kv_s(source, target, self._events.time_s, kv_tokens - copied)
            self._events.at(there_s, self._arrived, (job, target, kv_tokens))

    def _copied(self, move: _Move) -> None:
        job, attempt = move[:2]
        placement = job.work.placement
        if job.is_outdated(attempt) or placement is None:
            self._call_off(move)
            return
        self._leaving[job] = move
        self._instances[placement.decode].ask_to_leave(job)

    def _arrived(self, arrival: tuple[Job, Instance, int]) -> None:
        job, target, kv_tokens = arrival
        work = job.work
        assert work.placement is not None
        work.placement = replace(work.placement, decode=target.instance_id)
        work.moving_to = None
        work.num_moves += 1
        work.num_outputs = job.outputs
        self.num_moves += 1
        self._books.note(work)
        target.join(job, kv_tokens)

    def _call_off(self, move: _Move) -> None:
        """It ended or gave way meanwhile: the target's blocks are free again."""
        job, attempt, target, _, blocks = move
        if not job.is_outdated(attempt):
            job.work.moving_to = None
            self._books.note(job.work)
        target.release(blocks)
