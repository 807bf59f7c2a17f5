"""Decoding requests that move to another instance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from coordinator.policy.books import Books
from coordinator.policy.migration import choose_target
from coordinator.policy.view import num_blocks
from core.profile import Profile
from simulator.events import Events
from simulator.instance import Instance
from simulator.job import Job
from simulator.links import Links

OnEnd = Callable[[int | None], None]  # gets the bytes that went over; None: the request stayed


@dataclass(slots=True, eq=False)
class _Move:
    """`copied_tokens` go over while the source decodes on; `blocks` are taken at the target for them."""

    job: Job
    attempt: int
    target: Instance
    copied_tokens: int
    blocks: int
    on_end: OnEnd


class Moves:
    """The source copies the KV while it decodes on, then the sequence stands still for the rest of it."""

    def __init__(
        self,
        profile: Profile,
        events: Events,
        books: Books,
        links: Links,
        *,
        instances: Mapping[str, Instance],
        jobs: Mapping[str, Job],
        requeue: Callable[[Job], None],
    ) -> None:
        self._profile = profile
        self._events = events
        self._books = books
        self._instances = instances
        self._jobs = jobs
        self._links = links
        self._requeue = requeue
        self._leaving: dict[Job, _Move] = {}
        self.num_moves = 0

    def start(self, request_id: str, on_end: OnEnd) -> bool:
        """Begins to move a request; False where it cannot move now. `on_end` is called later, once."""
        job = self._jobs[request_id]
        work, placement = job.work, job.work.placement
        if work.moving_to is not None or placement is None:
            return False
        source = self._instances[placement.decode]
        name = choose_target(
            self._books.instances.values(), source.instance_id, work.promised_tokens, work.group
        )
        if name is None or job not in source.batch.jobs:
            return False
        target, kv_tokens = self._instances[name], source.kv_tokens(job)
        blocks = num_blocks(kv_tokens, self._profile.block_tokens)
        if not target.take_blocks(blocks):
            return False
        work.moving_to = name
        self._books.note(work)
        there_s = self._links.kv_s(source, target, self._events.time_s, kv_tokens)
        move = _Move(job, job.attempt, target, kv_tokens, blocks, on_end)
        self._events.at(there_s, self._copied, move)
        return True

    def left(self, job: Job, kv_tokens: int | None) -> None:
        """The source has let it go; what it gained since the copy follows."""
        move = self._leaving.pop(job)
        if kv_tokens is None:
            self._call_off(move)
            return
        more = num_blocks(kv_tokens, self._profile.block_tokens) - move.blocks
        if more and not move.target.take_blocks(more):
            self._call_off(move)
            self._requeue(job)
            return
        source = self._instances[job.work.placement.decode]  # type: ignore[union-attr]
        more_tokens = kv_tokens - move.copied_tokens
        there_s = self._links.kv_s(source, move.target, self._events.time_s, more_tokens)
        self._events.at(there_s, self._arrived, (move, kv_tokens))

    def check_idle(self) -> None:
        """Raises AssertionError where a move has not ended."""
        assert not self._leaving, f"still leaving: {[job.request.request_id for job in self._leaving]}"

    def _copied(self, move: _Move) -> None:
        placement = move.job.work.placement
        if move.job.is_outdated(move.attempt) or placement is None:
            self._call_off(move)
            return
        self._leaving[move.job] = move
        source = self._instances[placement.decode]
        source.call(lambda: source.let_leave(move.job))

    def _arrived(self, arrival: tuple[_Move, int]) -> None:
        move, kv_tokens = arrival
        work = move.job.work
        assert work.placement is not None
        work.placement = replace(work.placement, decode=move.target.instance_id)
        work.moving_to = None
        work.num_moves += 1
        work.num_outputs = move.job.outputs
        self.num_moves += 1
        self._books.note(work)
        move.target.join(move.job, kv_tokens)
        move.on_end(kv_tokens * self._profile.kv_bytes_per_token)

    def _call_off(self, move: _Move) -> None:
        """It ended or gave way meanwhile: the target's blocks are free again."""
        work = move.job.work
        if not move.job.is_outdated(move.attempt):
            work.moving_to = None
            self._books.note(work)
        move.target.release(move.blocks)
        move.on_end(None)
