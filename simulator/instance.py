"""One simulated engine: the turns, the batches and the block pool of a stage server."""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable, Iterable

from coordinator.policy.work import Work
from core.costs import StepShape
from core.profile import Profile
from core.prompt_order import PromptOrder, choose_chunks, is_text_ready
from simulator.batch import DecodeBatch
from simulator.caches import EncoderCache, PrefixCache
from simulator.decode_run import DecodeRun
from simulator.encode_queue import EncodeQueue, Item
from simulator.events import Events
from simulator.job import Job
from simulator.leases import Leases
from simulator.listener import Listener
from simulator.usage import Usage
from simulator.victim import by_order, latest

_IDLE, _BUSY, _RUN = range(3)


class Instance:
    """Turns as the engine thread has them: a slice of encoding, or a step of decodes and prefill chunks.

    A turn takes in what came before it began. A step without chunks is a decode run: it goes on until the
    first sequence ends or the blocks do, and what comes in cuts it short after the step at hand. Blocks that
    a run may take are taken when it begins.
    """

    def __init__(
        self,
        instance_id: str,
        profile: Profile,
        events: Events,
        listener: Listener,
        *,
        has_encoder_cache: bool = False,
        has_prefix_cache: bool = False,
        prompt_order: PromptOrder,
        encodes: EncodeQueue,
    ) -> None:
        self.instance_id = instance_id
        self.profile = profile
        self.usage = Usage()
        self.encoder_cache = EncoderCache(profile.embedding_tokens if has_encoder_cache else 0)
        self.prefix_cache = PrefixCache() if has_prefix_cache else None
        self.total_blocks = profile.kv_tokens // profile.block_tokens
        self.free_blocks = self.total_blocks
        self._block_tokens = profile.block_tokens
        self.batch = DecodeBatch(profile.block_tokens)
        self.prefills: list[Job] = []  # in order of arrival
        self.out_free_s = self.in_free_s = 0.0  # when its links are free again
        self._events = events
        self._listener = listener
        self._prompt_order: PromptOrder = prompt_order
        self._encodes = encodes
        self._joining: deque[tuple[Job, int]] = deque()  # with KV here, for the batch of the next turn
        self._calls: deque[Callable[[], None]] = deque()
        self._leases = Leases()
        self._run = DecodeRun(profile.step)
        self._phase = _IDLE
        self._version = 0  # of the run's end
        self._planned_blocks = self._num_started = 0  # the latter: prefills that hold blocks
        self._chunks: list[tuple[Job, int]] = []
        self._has_decoded = False
        self._shape = StepShape()
        self._start_s = 0.0

    # what comes in

    def add_encode(self, job: Job, index: int, asked_s: float) -> None:
        self._encodes.add(job, index, asked_s)
        self.wake()

    def add_prefill(self, job: Job) -> None:
        insort(self.prefills, job, key=by_order)
        self.wake()

    def join(self, job: Job, kv_tokens: int) -> None:
        """Goes on with a sequence whose KV lies here, in exactly the blocks that it needs."""
        self._joining.append((job, kv_tokens))
        self.wake()

    def lease(self, job: Job, num_tokens: int) -> None:
        """Blocks for a hand-over, now or when they are free."""
        self._leases.ask(job, self._blocks(num_tokens))
        self._grant()

    def take_blocks(self, blocks: int) -> bool:
        """Takes so many at once, or nothing."""
        if blocks > self.free_blocks and self._phase == _RUN:
            self._cut_run()
            needed = self.batch.growth(self._run.num_steps)
            self.free_blocks += self._planned_blocks - needed
            self._planned_blocks = needed
        is_enough = blocks <= self.free_blocks
        self.free_blocks -= blocks * is_enough
        return is_enough

    def release(self, blocks: int) -> None:
        self.free_blocks += blocks
        if self._leases.waiting:
            self._grant()
        if self.prefills and self._phase != _BUSY:
            self.wake()

    def call(self, function: Callable[[], None]) -> None:
        """Before the next turn, at once where there is none at hand."""
        self._calls.append(function)
        self.wake()

    def wake(self) -> None:
        """Something came in: begin a turn, or end the run after the step at hand."""
        if self._phase == _IDLE:
            self._turn()
        elif self._phase == _RUN:
            self._cut_run()

    # what can be asked

    def outputs(self, job: Job) -> int:
        """Tokens shown by now; those of the step at hand are not."""
        return self.batch.outputs(job) + self._shown_steps() if job in self.batch.jobs else job.outputs

    def kv_tokens(self, job: Job) -> int:
        """Of a decoding sequence, by now."""
        return self.batch.kv_tokens(job) + self._shown_steps()

    def context_tokens(self) -> int:
        """Of the whole decode batch, by now."""
        return self.batch.context + self.batch.size * self._shown_steps()

    def progress(self) -> list[tuple[Work, int]]:
        """Decoding requests and the tokens they have shown by now."""
        shown = self._shown_steps() + self.batch.steps
        return [(job.work, job.joined_outputs + shown - job.joined_step) for job in self.batch.jobs]

    def _shown_steps(self) -> int:
        """Steps of the run that are over."""
        is_running = self._phase == _RUN and self._events.time_s > self._run.start_s
        return self._run.steps_by(self._events.time_s) - 1 if is_running else 0

    def check_integrity(self) -> None:
        """Raises AssertionError where blocks and jobs disagree."""
        self.batch.check_integrity()
        held = sum(self.batch.held_blocks(job) for job in self.batch.jobs)
        held += sum(job.blocks for job in self.prefills)
        held += sum(self._blocks(kv_tokens) for _, kv_tokens in self._joining)
        held += self._planned_blocks if self._phase != _IDLE else 0
        assert 0 <= self.free_blocks <= self.total_blocks - held, f"{self.instance_id}: {self.free_blocks}"

    def check_idle(self) -> None:
        """Raises AssertionError if anything is left here."""
        assert self._phase == _IDLE
        waiting = self.prefills, self._joining, self._calls, self._encodes.has_work, self._leases.waiting
        assert not any(waiting), f"{self.instance_id}: {waiting}"
        assert not self.batch.jobs
        assert self.free_blocks == self.total_blocks, f"{self.instance_id}: {self.free_blocks} are free"

    # the turn

    def _turn(self) -> None:
        self._phase = _BUSY
        while self._calls:
            self._calls.popleft()()
        while self._joining and self._can_join():
            self.batch.add(*self._joining.popleft())
        encodes, events = self._encodes, self._events
        if encodes.has_work and self._is_encode_next() and (part := encodes.next()) is not None:
            self.usage.encode_s += part.seconds
            events.at(events.time_s + part.seconds, self._encoded, part.encoded)
        else:
            self._step()

    def _is_encode_next(self) -> bool:
        can_step = self.batch.size or any(job.num_ready > 0 for job in self.prefills)
        return not can_step or self._encodes.is_next(self._wants_step_first)

    def _wants_step_first(self) -> bool:
        if self._prompt_order != "text-first" or not self.prefills:
            return False
        return is_text_ready(self.prefills, lambda job: self._fits(job, self.batch.size))

    def _line(self) -> Iterable[Job]:
        """Prompts whose turn it is, if nothing is missing for them."""
        return self.prefills

    def _can_join(self) -> bool:
        return self.batch.size < self.profile.max_sequences

    def let_leave(self, job: Job) -> None:
        """Takes a decoding sequence out and tells the listener; for `call`."""
        kv_tokens = self.batch.remove(job) if job in self.batch.jobs else None
        self.release(self._blocks(kv_tokens or 0))
        self._listener.left(self, job, kv_tokens)

    def _encoded(self, items: tuple[Item, ...]) -> None:
        # They come back through the loop. A step that has no prompt without them waits so long, nothing else.
        is_prompt_ready = any(job.num_ready > 0 for job in self.prefills)
        waits = not (is_prompt_ready or (self._encodes.has_work and self._is_encode_next()))
        if not waits:
            self._turn()
        self.usage.num_encodes += len(items)
        for item in items:
            self.encoder_cache.put(item.job.request.pictures[item.place].digest, item.num_tokens)
            self._listener.encoded(self, item.job, item.place, item.work_s)
        if waits:
            self._turn()
        if items:
            self._listener.settled(self)

    def _step(self) -> None:
        """Starts a step or a run, or rests."""
        batch = self.batch
        is_short = batch.next_growth() > self.free_blocks and not self._make_room()
        self._has_decoded = has_decodes = batch.size > 0
        if self.prefills and self._select(is_short):
            self._start_step()
        elif has_decodes:
            self._start_run()
        elif self._encodes.has_work or self._joining:
            self._encodes.note_step(0.0)
            self._turn()
        else:
            self._phase = _IDLE

    def _select(self, is_short: bool) -> list[tuple[Job, int]]:
        """Prefill chunks within the step's tokens; takes blocks for new prompts."""
        most, num_decodes = self.profile.chunk_tokens, self.batch.size

        def admit(job: Job, kept: Job | None) -> bool:
            return not is_short and self._admit(job, num_decodes, kept)

        self._chunks = choose_chunks(self._line(), most - num_decodes, most, admit, self._prompt_order)
        return self._chunks

    def _admit(self, job: Job, num_decodes: int, kept: Job | None = None) -> bool:
        """Takes blocks for a whole prompt, but leaves those of `kept`, and each decode one to grow into."""
        if not self._fits(job, num_decodes, kept):
            return False
        job.blocks = self._blocks(job.target_tokens)
        self.free_blocks -= job.blocks
        self._num_started += 1
        return True

    def _fits(self, job: Job, num_decodes: int, kept: Job | None = None) -> bool:
        needed = self._blocks(job.target_tokens) + (self._blocks(kept.target_tokens) if kept else 0)
        started = num_decodes + self._num_started + (kept is not None)
        return needed + num_decodes <= self.free_blocks and started < self.profile.max_sequences

    def _start_step(self) -> None:
        batch = self.batch
        num_decodes, context = batch.size, batch.context
        new, attended, sequences = num_decodes, float(context), num_decodes + len(self._chunks)
        for job, size in self._chunks:
            new += size
            attended += size * (job.computed + size / 2)
            context += job.computed
        self._planned_blocks = planned = batch.next_growth()
        self.free_blocks -= planned
        self._launch(StepShape(new, attended, sequences, context))

    def _launch(self, shape: StepShape, before_s: float = 0.0) -> None:
        """Runs a step of that shape, `before_s` after now."""
        seconds = self.profile.step.step_s(shape)
        self._shape, self._start_s = shape, self._events.time_s + before_s
        self.usage.step_s += seconds
        self.usage.num_steps += 1
        self._encodes.note_step(seconds)
        self._events.at(self._start_s + seconds, self._step_ended, seconds)

    def _step_ended(self, seconds: float) -> None:
        self._planned_blocks = 0
        if self._has_decoded:
            self.batch.advance(1)
            self._end_finished()
        for job, size in self._chunks:
            self._progress(job, size)
        self._listener.stepped(self, self._shape, seconds)
        self._listener.settled(self)
        self._turn()

    def _progress(self, job: Job, size: int) -> None:
        job.computed += size
        if not (job.is_local or job.is_recomputing):
            self._listener.chunk_done(self, job, size, self._start_s)
        if job.computed < job.target_tokens:
            return
        self.prefills.remove(job)
        self._num_started -= 1
        job.outputs += 1
        if self.prefix_cache is not None:
            room = (self.free_blocks + job.blocks) * self.profile.block_tokens
            self.prefix_cache.put(job.request.prefix, room // job.request.prefix_granule_tokens)
        if not job.is_recomputing:
            self._listener.prefilled(self, job)
        elif job.outputs >= job.request.output_tokens:
            self.end_prefill(job)
            self._listener.finished(self, job)
        else:
            self.decode_here(job)

    def decode_here(self, job: Job) -> None:
        """A sequence that was prefilled here goes on here; its blocks stay."""
        job.blocks, job.is_recomputing = 0, False
        self._joining.append((job, job.target_tokens))

    def end_prefill(self, job: Job) -> None:
        """Gives back what the prefill held."""
        blocks, job.blocks, job.is_recomputing = job.blocks, 0, False
        self.release(blocks)

    def _start_run(self) -> None:
        batch, run, events = self.batch, self._run, self._events
        most = 1 if self._is_awaited() else batch.steps_to_finish()
        num_steps, planned = batch.longest_run(self.free_blocks, most)
        self._planned_blocks = planned
        self.free_blocks -= planned
        run.begin(events.time_s, batch.size, batch.context, num_steps)
        self._phase = _RUN
        self._version = version = self._version + 1
        events.at(run.end_s, self._run_ended, version)

    def _is_awaited(self) -> bool:
        """Whether something is to be done after the next step already."""
        return bool(self._encodes.has_work or self._calls or (self._joining and self._can_join()))

    def _cut_run(self) -> None:
        """Lets the step at hand be the last of the run."""
        run, events = self._run, self._events
        if not run.is_last_step and run.cut(events.time_s):
            self._version = version = self._version + 1
            events.at(run.end_s, self._run_ended, version)

    def _run_ended(self, version: int) -> None:
        if version != self._version:
            return
        batch, usage, listener = self.batch, self.usage, self._listener
        num_steps, seconds, size = self._run.num_steps, self._run.seconds, batch.size
        self._phase = _BUSY
        self.free_blocks += self._planned_blocks - batch.growth(num_steps)
        self._planned_blocks = 0
        mean_context = batch.context + size * (num_steps - 1) / 2
        batch.advance(num_steps)
        usage.step_s += seconds
        usage.num_steps += 1
        step_s = seconds / num_steps
        self._encodes.note_step(step_s)
        self._end_finished()
        listener.stepped(self, StepShape(size, mean_context, size, int(mean_context)), step_s)
        listener.settled(self)
        self._turn()

    def _end_finished(self) -> None:
        for job in self.batch.finished():
            self.release(self._blocks(self.batch.remove(job)))
            self._listener.finished(self, job)

    # blocks

    def _blocks(self, num_tokens: int) -> int:
        return -(-num_tokens // self._block_tokens)

    def _grant(self) -> None:
        while (first := self._leases.first()) is not None and self.take_blocks(first[1]):
            self._leases.grant(*first)
            self._listener.leased(self, first[0])

    def _make_room(self) -> bool:
        """Lets the latest arrivals give way until a step of the batch has its blocks; whether none had to."""
        is_enough = True
        while self.batch.size and self.batch.next_growth() > self.free_blocks:
            is_enough = False
            self._preempt(latest(self.batch.jobs, self.prefills))
        if not (is_enough or self.batch.size):
            self._grant()
        return is_enough

    def _preempt(self, job: Job) -> None:
        """Takes its blocks; it is computed again here if nothing is missing for that."""
        job.work.num_preemptions += 1
        self.usage.num_preemptions += 1
        if job in self.batch.jobs:
            kv_tokens = self.batch.remove(job)
            self.free_blocks += self._blocks(kv_tokens)
            if job.work.media and not job.is_local:
                self._listener.lost(self, job)
                return
            job.is_recomputing = True
            job.target_tokens = job.ready = job.work.prompt_tokens + job.outputs
            insort(self.prefills, job, key=by_order)
        else:
            self.free_blocks, job.blocks = self.free_blocks + job.blocks, 0
            self._num_started -= 1
        job.computed = 0
