"""How one group stands now: what waits, what lies on whom, what one instance more or less would mean.

All sums are seconds per token, as design.md's Gain and Cost are: prefills weigh 1 / input length, decodes
1 / output length.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from heapq import heapify, heapreplace
from itertools import islice
from typing import NamedTuple

from coordinator.policy.books import Books, InstanceBook
from coordinator.policy.costing import Costing
from coordinator.policy.plan import GROUPS
from coordinator.policy.work import Work
from core.stages import ModalityGroup, Roles, Stage

MOST_JOBS = 64  # waiting requests that are weighed; more of them would say the same louder


class Job(NamedTuple):
    """One waiting request."""

    encode_s: float
    prefill_s: float
    input_tokens: int
    blocks_tokens: int  # that it will need KV for


class Standing:
    """One group at one moment; every question is a few passes over its instances."""

    def __init__(
        self,
        group: ModalityGroup,
        members: Mapping[str, Roles],
        books: Books,
        costing: Costing,
        output_tokens: float,
    ) -> None:
        """`members` and their roles by the plan, also where a switch is still to be made."""
        self.group = group
        self.members = members
        self.by_roles: dict[Roles, list[InstanceBook]] = {}
        for name, roles in members.items():
            self.by_roles.setdefault(roles, []).append(books.instances[name])
        self._waits_s: dict[Stage, float] = {}  # that were asked for
        self._backlogs_s = {name: costing.backlog_s(books.instances[name].load) for name in members}
        self.players = {
            stage: [book for roles, own in self.by_roles.items() if stage in roles for book in own]
            for stage in Stage
        }
        self.output_tokens = max(1.0, output_tokens)  # of an answer, in the mean
        self._costing = costing
        served = [each for each in GROUPS if group in (each, ModalityGroup.SHARED)]
        self.jobs = [_job(work) for each in served for work in islice(books.waiting(each), MOST_JOBS)]
        loads = [books.waiting_load(each) for each in served]
        self.waiting_encode_s = sum(load.encode_s for load in loads)
        self.waiting_prefill_s = sum(load.prefill_s for load in loads)
        decoders = self.players[Stage.DECODE]
        self.sequences = sum([book.load.sequences for book in decoders])
        self.context_tokens = sum([book.load.context_tokens for book in decoders])

    # times

    def wait_s(self, stage: Stage) -> float:
        """Until what comes now would be begun by ENCODE or PREFILL; infinite where nobody could."""
        known = self._waits_s.get(stage)
        if known is None:
            known = self._waits_s[stage] = self._find_wait_s(stage)
        return known

    def _find_wait_s(self, stage: Stage) -> float:
        players = self.players[stage]
        waiting_s = self.waiting_encode_s if stage is Stage.ENCODE else self.waiting_prefill_s
        backlog_s = sum([self._backlogs_s[book.instance_id] for book in players]) + waiting_s
        if not players:
            return float("inf") if backlog_s > 0 else 0.0
        return backlog_s / len(players)

    def ttft_s(self) -> float:
        """Predicted for what comes now, its own work left out."""
        return max(self.wait_s(Stage.ENCODE), self.wait_s(Stage.PREFILL))

    def backlog_s(self, book: InstanceBook) -> float:
        """Device time of what was dispatched there."""
        return self._backlogs_s[book.instance_id]

    def step_s(self, instances: int) -> float:
        """A decode step, were the group's sequences spread over so many instances."""
        if instances < 1:
            return float("inf") if self.sequences else 0.0
        return self._costing.decode_step_s(self.sequences / instances, self.context_tokens / instances)

    def answer_s(self, instances: int) -> float:
        """Until a sequence ends: AvgLat_d; half of the answer is left in the mean."""
        return self.output_tokens / 2 * self.step_s(instances)

    # gains

    def gain(self, stage: Stage, worst_s: float) -> float:
        """What one instance more at the stage spares everyone.

        `worst_s`: what a request waits beyond that where no instance plays the stage yet.
        """
        if stage is Stage.DECODE:
            return self._decode_gain()
        backlogs = [self.backlog_s(book) for book in self.players[stage]]
        with_one = self._finish_s(stage, [*backlogs, 0.0])
        without = self._finish_s(stage, backlogs) if backlogs else [each + worst_s for each in with_one]
        return self._per_token(a - b for a, b in zip(without, with_one, strict=True))

    def harm(self, stage: Stage, book: InstanceBook, weight: float, worst_s: float) -> float:
        """What it costs those left at the stage to lose the instance, its sequences' migration included.

        Infinite where the others have no room for what it holds.
        """
        others = [each for each in self.players[stage] if each is not book]
        if stage is Stage.DECODE:
            return self._decode_harm(book, others, weight)
        backlogs = [self.backlog_s(each) for each in self.players[stage]]
        rest = [self.backlog_s(each) for each in others]
        before = self._finish_s(stage, backlogs)
        after = self._finish_s(stage, rest) if rest else [each + worst_s for each in before]
        drain_s = self.backlog_s(book) * self._per_token(1.0 for _ in before) / max(1, len(before))
        return drain_s + weight * self._per_token(a - b for a, b in zip(after, before, strict=True))

    def _decode_gain(self) -> float:
        count = len(self.players[Stage.DECODE])
        faster_s = self.answer_s(max(1, count)) - self.answer_s(count + 1)
        gain = self.sequences * faster_s / self.output_tokens
        return gain + self._per_token(self.blocked_s(0) - self.blocked_s(1) for _ in self.jobs)

    def _decode_harm(self, book: InstanceBook, others: Sequence[InstanceBook], weight: float) -> float:
        load = book.load
        if load.sequences and load.kv_blocks > sum(each.free_kv_blocks for each in others):
            return float("inf")
        move_s = 0.0
        if load.sequences:
            move_s = load.sequences * self._costing.model.kv_move_s(load.context_tokens // load.sequences)
        count = len(others)
        slower_s = self.answer_s(count) - self.answer_s(count + 1) if self.sequences else 0.0
        return (move_s + weight * self.sequences * slower_s) / self.output_tokens

    # room

    def blocks_short(self, more_instances: int = 0) -> int:
        """Blocks that the waiting jobs need beyond those free on decode instances."""
        decoders = self.players[Stage.DECODE]
        if not decoders:
            return 0
        needed = sum([decoders[0].kv_blocks(job.blocks_tokens) for job in self.jobs])
        free = sum([book.free_kv_blocks for book in decoders])
        free += more_instances * decoders[0].total_kv_blocks
        return max(0, needed - free)

    def blocked_s(self, more_instances: int) -> float:
        """How long a waiting job waits for blocks: answers free theirs at an even rate."""
        held = sum(book.load.kv_blocks for book in self.players[Stage.DECODE])
        short = self.blocks_short(more_instances)
        count = len(self.players[Stage.DECODE]) + more_instances
        return self.answer_s(count) * short / held if held and short else 0.0

    # sums

    def _finish_s(self, stage: Stage, backlogs: Sequence[float]) -> list[float]:
        """T(r, E) of every job: each in its turn to the instance that is free first."""
        free_s = list(backlogs)
        heapify(free_s)
        finish_s = []
        for job in self.jobs:
            own_s = job.encode_s if stage is Stage.ENCODE else job.prefill_s
            end_s = free_s[0] + own_s
            heapreplace(free_s, end_s)
            finish_s.append(end_s if own_s else 0.0)
        return finish_s

    def _per_token(self, seconds: Iterable[float]) -> float:
        return sum(each / job.input_tokens for each, job in zip(seconds, self.jobs, strict=True))


def _job(work: Work) -> Job:
    return Job(work.encode_s, work.prefill_s, work.context_tokens, work.promised_tokens)
