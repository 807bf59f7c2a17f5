"""The decode batch of one instance, kept by sums: a step costs the same whatever its size."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush

from coordinator.policy.view import num_blocks
from simulator.job import Job

_NOBODY: tuple[Job, ...] = ()


class DecodeBatch:
    """Sequences that all gain one token a step.

    `steps` counts the steps of the instance's batch for ever; a sequence that joined at step s with n tokens
    of KV holds n + steps - s of them. It takes a new block at every step with steps % block_tokens == its
    phase, so the blocks that a step needs are one look-up.
    """

    __slots__ = ("_block_tokens", "_finishing", "_growth", "context", "jobs", "size", "steps")

    def __init__(self, block_tokens: int) -> None:
        self._block_tokens = block_tokens
        self._growth = [0] * block_tokens  # sequences by phase
        self._finishing: list[tuple[int, int, int, Job]] = []
        self.jobs: dict[Job, None] = {}
        self.size = 0  # of `jobs`
        self.steps = 0
        self.context = 0  # tokens of KV that the next step reads

    def add(self, job: Job, kv_tokens: int) -> None:
        """It holds exactly the blocks for `kv_tokens`, and has one token without KV."""
        job.membership += 1
        job.joined_step, job.joined_context, job.joined_outputs = self.steps, kv_tokens, job.outputs
        self.jobs[job] = None
        self.size += 1
        self.context += kv_tokens
        self._growth[(self.steps - kv_tokens) % self._block_tokens] += 1
        last_step = self.steps + job.request.output_tokens - job.outputs
        heappush(self._finishing, (last_step, job.order, job.membership, job))

    def remove(self, job: Job) -> int:
        """Takes it out with its outputs brought up to date; returns the tokens of KV it holds."""
        gained = self.steps - job.joined_step
        kv_tokens = job.joined_context + gained
        job.outputs = job.joined_outputs + gained
        job.membership += 1
        del self.jobs[job]
        self.size -= 1
        self.context -= kv_tokens
        self._growth[(job.joined_step - job.joined_context) % self._block_tokens] -= 1
        return kv_tokens

    def kv_tokens(self, job: Job) -> int:
        return job.joined_context + self.steps - job.joined_step

    def outputs(self, job: Job) -> int:
        return job.joined_outputs + self.steps - job.joined_step

    def held_blocks(self, job: Job) -> int:
        return num_blocks(self.kv_tokens(job), self._block_tokens)

    def advance(self, num_steps: int) -> None:
        self.steps += num_steps
        self.context += num_steps * self.size

    def next_growth(self) -> int:
        """Blocks that the next step takes."""
        return self._growth[self.steps % self._block_tokens]

    def growth(self, num_steps: int) -> int:
        """Blocks that the next `num_steps` steps take."""
        block_tokens, growth = self._block_tokens, self._growth
        first = self.steps % block_tokens
        if num_steps == 1:
            return growth[first]
        cycles, rest = divmod(num_steps, block_tokens)
        last = first + rest
        partial = sum(growth[first:last])
        if last > block_tokens:
            partial += sum(growth[: last - block_tokens])
        return cycles * self.size + partial

    def most_growth(self, num_steps: int) -> int:
        """An upper bound of `growth`, cheaper."""
        return self.size * (num_steps // self._block_tokens + 1)

    def longest_run(self, free_blocks: int, most: int) -> tuple[int, int]:
        """How many steps, up to `most`, the free blocks last for, and blocks that suffice for them."""
        bound = self.size * (most // self._block_tokens + 1)
        if bound <= free_blocks:
            return most, bound
        num_steps = self.steps_within(free_blocks, most)
        bound = self.most_growth(num_steps)
        return num_steps, bound if bound <= free_blocks else self.growth(num_steps)

    def steps_within(self, free_blocks: int, most: int) -> int:
        """How many steps, up to `most`, the free blocks last for."""
        if self.most_growth(most) <= free_blocks:
            return most
        low, high = 0, most
        while low < high:
            middle = (low + high + 1) // 2
            if self.growth(middle) <= free_blocks:
                low = middle
            else:
                high = middle - 1
        return low

    def steps_to_finish(self) -> int:
        """Until the first sequence has its last token; the batch must not be empty."""
        heap = self._finishing
        while heap[0][3].membership != heap[0][2]:
            heappop(heap)
        return heap[0][0] - self.steps

    def finished(self) -> Sequence[Job]:
        """Those that have their last token; they are still in the batch."""
        heap, steps = self._finishing, self.steps
        if not heap or heap[0][0] > steps:
            return _NOBODY
        done = []
        while heap and heap[0][0] <= steps:
            _, _, membership, job = heappop(heap)
            if job.membership == membership:
                done.append(job)
        return done

    def check_integrity(self) -> None:
        """Raises AssertionError where the sums are not those of the sequences."""
        assert self.context == sum(self.kv_tokens(job) for job in self.jobs)
        assert sum(self._growth) == len(self.jobs) == self.size
        assert min(self._growth) >= 0
