"""The simulated cluster: one scheduler, its books, and the instances that carry out what it says."""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.policy.books import Books, InstanceBook
from coordinator.policy.expectation import OutputExpectation
from coordinator.policy.scheduler import Scheduler
from coordinator.policy.view import Placement
from core.costs import StepShape
from core.lifecycle import RequestState
from core.prompt_order import PromptOrder
from core.stages import COUPLED, ModalityGroup
from simulator.cache_counts import CacheCounts
from simulator.config import ClusterConfig, SimulationError
from simulator.encode_queue import EncodeQueue
from simulator.events import Events
from simulator.inline import InlineInstance
from simulator.instance import Instance
from simulator.intake import Intake, embedding_blocks_of
from simulator.job import Job
from simulator.links import Links
from simulator.media_flow import MediaFlow, with_one_encoder
from simulator.moves import Moves
from simulator.prefixes import Prefixes
from simulator.result import RequestRecord, RunResult, record_of
from simulator.transitions import Transitions
from simulator.unified import UnifiedCache
from simulator.whole import WholeInstance
from simulator.workload.request import Request

_Ticket = tuple[Job, int]  # with its attempt, to know outdated events by


class Cluster:
    """Drives the scheduler as the dispatcher and the planner do; see `Scheduler` for the contract."""

    def __init__(
        self,
        config: ClusterConfig,
        scheduler: Scheduler,
        requests: Sequence[Request],
        caches: UnifiedCache | None = None,
    ) -> None:
        """`caches`: what instances keep in one cluster-wide cache, that the scheduler may know of."""
        self.config = config
        self._caches = caches
        self.events = Events()
        self.books = Books()
        self.scheduler = scheduler
        self.instances = {f"i{number}": self._build(f"i{number}") for number in range(config.instances)}
        self._requests = requests
        self._jobs: dict[str, Job] = {}  # that have not ended
        self._intake = Intake(
            config.profile,
            OutputExpectation(config.default_output_tokens),
            locates_media=caches is not None,
        )
        self._links = Links(config.profile)
        self._moves = Moves(
            config.profile,
            self.events,
            self.books,
            self._links,
            instances=self.instances,
            jobs=self._jobs,
            requeue=self._requeue,
        )
        self.transitions = Transitions(config, self.events, self.books, self._moves, self._place)
        self._media = MediaFlow(
            config,
            self.events,
            self.books,
            self._links,
            scheduler,
            instances=self.instances,
            caches=caches,
            place=self._place,
        )
        self._prefixes = None
        if caches is not None:
            caches.join(self._jobs, self.events.now_s)
            self._prefixes = Prefixes(
                self.events,
                self._links,
                self.instances,
                caches,
                kv_bytes_per_token=config.profile.kv_bytes_per_token,
            )
        self._records: list[RequestRecord] = []
        self._counted = 0  # arrivals, starts and ends of prefills, decodes and picture decoding
        self._moved_s = 0.0  # when something was last dispatched or ended

    def run(self) -> RunResult:
        """All requests to their end."""
        for instance in self.instances.values():
            self.books.add_instance(self._book(instance))
        self.transitions.start(self.scheduler.plan(self.books, 0.0).wanted)
        if self._requests:
            self.events.at(self._requests[0].arrival_s, self._arrive, 0)
            self.events.at(self.scheduler.tick_s, self._tick)
        self.events.run()
        return self._result()

    def check_idle(self) -> None:
        """Raises AssertionError if anything is left of any request."""
        self.books.check_integrity()
        self.transitions.check_idle()
        self._moves.check_idle()
        assert not self._jobs
        assert not self.books.running
        assert not self.books.num_waiting()
        if self._caches is not None:
            self._caches.check_idle()
        for name, instance in self.instances.items():
            instance.check_integrity()
            instance.check_idle()
            assert self.books.instances[name].is_idle

    # what happens by itself

    def _arrive(self, index: int) -> None:
        request = self._requests[index]
        if index + 1 < len(self._requests):
            self.events.at(self._requests[index + 1].arrival_s, self._arrive, index + 1)
        work = self._intake.work(request)
        job = self._jobs[request.request_id] = Job(request, work, index)
        self._counted += 1
        if not self._intake.fits(request, work):
            self._end(job, RequestState.FAILED)
            return
        self.books.queue(work)
        self.scheduler.note_arrival(work, self.events.time_s)
        self._place()

    def _tick(self, _: object) -> None:
        now_s = self.events.time_s
        for name, instance in self.instances.items():
            if instance.batch.size:
                self.books.note_outputs(name, instance.progress())
        self.transitions.reconciler.expire()
        self.transitions.reconciler.reconcile(self.scheduler.plan(self.books, now_s).wanted)
        self._place()
        if self.books.running or not self.books.num_waiting():
            self._moved_s = now_s
        elif now_s - self._moved_s > self.config.stall_s:
            raise SimulationError(f"{self.books.num_waiting()} requests wait and none is dispatched")
        if len(self._records) < len(self._requests):
            self.events.at(now_s + self.scheduler.tick_s, self._tick)

    # dispatch

    def _place(self) -> None:
        books = self.books
        while books.has_waiting:
            placement = self.scheduler.place(books, self.events.time_s)
            if placement is None:
                return
            self._dispatch(placement)

    def _dispatch(self, placement: Placement) -> None:
        job = self._jobs[placement.request_id]
        work = job.work
        if self.config.encoding == "inline":
            placement = with_one_encoder(placement)
        work.placement = placement
        work.outputs_at_dispatch = work.num_outputs
        work.is_prefilled = work.is_handed_over = False
        job.start(self._intake.side_tokens(work))
        job.go(RequestState.ENCODING if work.media else RequestState.PREFILLING)
        if job.dispatched_s is None:
            job.dispatched_s = self.events.time_s
        self._counted += 4
        self.books.note(work)
        self.events.at(self.events.time_s + self.config.control_s, self._deliver, job)

    def _deliver(self, job: Job) -> None:
        placement = _placement(job)
        prefill = self.instances[placement.prefill]
        if prefill.prefix_cache is not None and job.request.prefix:
            hit = prefill.prefix_cache.take(job.request.prefix, job.request.prefix_granule_tokens)
            job.computed = job.unsent_tokens = max(job.computed, min(hit, job.target_tokens - 1))
        if self._prefixes is not None:
            self._prefixes.begin(job, placement)
        self._media.start(job, placement)
        if not job.is_local:
            self.instances[placement.decode].lease(job, job.target_tokens)
        prefill.add_prefill(job)

    # what instances tell

    def encoded(self, instance: Instance, job: Job, index: int, seconds: float) -> None:
        self._media.encoded(instance, job, index, seconds)

    def chunk_done(self, instance: Instance, job: Job, num_tokens: int, start_s: float) -> None:
        job.unsent_tokens += num_tokens
        if job.has_lease:
            decode = self.instances[_placement(job).decode]
            tokens, job.unsent_tokens = job.unsent_tokens, 0
            now_s = self.events.time_s
            job.kv_there_s = self._links.layered_kv_s(instance, decode, start_s, now_s, tokens)

    def leased(self, instance: Instance, job: Job) -> None:
        if job.work.is_prefilled:
            prefill = self.instances[_placement(job).prefill]
            job.kv_there_s = self._links.kv_s(prefill, instance, self.events.time_s, job.unsent_tokens)
            self.events.at(job.kv_there_s, self._handed_over, (job, job.attempt))

    def prefilled(self, instance: Instance, job: Job) -> None:
        now_s, work = self.events.time_s, job.work
        work.num_outputs = job.outputs
        if self._caches is not None:
            own_tokens = job.blocks * self.config.profile.block_tokens
            self._caches.put_prompt(instance.instance_id, job, own_tokens)
        if job.first_token_s is None:
            job.first_token_s = now_s
            self.scheduler.note_first_token(work, now_s - work.arrival_s)
        if job.outputs >= job.request.output_tokens:
            instance.end_prefill(job)
            self._give_back_lease(job)
            self._end(job, RequestState.FINISHED)
            return
        work.is_prefilled, work.is_handed_over = True, job.is_local
        job.go(RequestState.DECODING)
        self.books.note(work)
        if job.is_local:
            instance.decode_here(job)
        elif job.has_lease:
            self.events.at(max(now_s, job.kv_there_s), self._handed_over, (job, job.attempt))

    def _handed_over(self, ticket: _Ticket) -> None:
        job, attempt = ticket
        if job.is_outdated(attempt):
            return
        placement = _placement(job)
        prefill, decode = self.instances[placement.prefill], self.instances[placement.decode]
        job.has_lease, job.leased_blocks = False, 0
        job.work.is_handed_over = True
        self.books.note(job.work)
        prefill.end_prefill(job)
        decode.join(job, job.target_tokens)
        self._place()

    def finished(self, instance: Instance, job: Job) -> None:
        self._end(job, RequestState.FINISHED)

    def lost(self, instance: Instance, job: Job) -> None:
        self._requeue(job)

    def left(self, instance: Instance, job: Job, kv_tokens: int | None) -> None:
        self._moves.left(job, kv_tokens)

    def stepped(self, instance: Instance, shape: StepShape, seconds: float) -> None:
        self.scheduler.note_step(instance.instance_id, shape, seconds)

    def settled(self, instance: Instance) -> None:
        if self.books.has_waiting:
            self._place()

    # verbs

    def _give_back_lease(self, job: Job) -> None:
        """Of a hand-over that will not be."""
        blocks, job.leased_blocks, job.has_lease = job.leased_blocks, 0, False
        job.attempt += 1
        if blocks:
            self.instances[_placement(job).decode].release(blocks)

    def _requeue(self, job: Job) -> None:
        """It has lost its KV: dispatched again from the prompt and the tokens shown."""
        work = job.work
        job.attempt += 1
        job.go(RequestState.QUEUED)
        work.num_outputs = job.outputs
        work.placement = work.moving_to = None
        work.encoded.clear()
        self.books.queue(work)

    def _end(self, job: Job, state: RequestState) -> None:
        now_s, work = self.events.time_s, job.work
        work.num_outputs = job.outputs
        job.go(state)
        job.finished_s = now_s
        record = record_of(job)
        self.books.end(work)
        if state is RequestState.FINISHED:
            self.scheduler.note_finished(work, record.tpot_s or 0.0)
            self._intake.ended(job.outputs)
        if self._caches is not None:
            if state is RequestState.FINISHED:
                self._caches.put_whole(_placement(job).decode, job)
            self._caches.forget(job)
        del self._jobs[job.request.request_id]
        self._records.append(record)

    def _build(self, name: str) -> Instance:
        config, costs = self.config, self.config.profile.encode
        kind: type[Instance]
        prompt_order: PromptOrder
        if config.encoding == "inline":
            kind, prompt_order = InlineInstance, "arrival"
            encodes = EncodeQueue(costs, "arrival", preprocesses=True)
        else:
            kind = WholeInstance if config.discipline == "whole" else Instance
            prompt_order = "text-first" if config.discipline == "text-first" else "arrival"
            encodes = EncodeQueue(
                costs, config.encode_order, tpot_s=config.tpot_s, slice_s=config.encode_slice_s
            )
        instance = kind(
            name,
            config.profile,
            self.events,
            self,
            has_encoder_cache=config.encoder_cache,
            has_prefix_cache=config.prefix_cache,
            prompt_order=prompt_order,
            encodes=encodes,
        )
        if self._caches is not None:
            self._caches.add(name, lambda: instance.free_blocks * config.profile.block_tokens)
        return instance

    def _book(self, instance: Instance) -> InstanceBook:
        profile = self.config.profile
        return InstanceBook(
            instance.instance_id,
            COUPLED,
            ModalityGroup.SHARED,
            profile.block_tokens,
            instance.total_blocks,
            embedding_blocks_of(profile),
            profile.max_sequences,
        )

    def _result(self) -> RunResult:
        usage = {name: instance.usage for name, instance in self.instances.items()}
        steps = sum(each.num_steps + 2 * each.num_encodes for each in usage.values())
        return RunResult(
            records=tuple(self._records),
            spans=self.transitions.spans(self.events.time_s),
            usage=usage,
            duration_s=self.events.time_s,
            num_events=self._counted + self._media.num_preprocessed + steps + 2 * self._links.num_transfers,
            num_switches=self.transitions.reconciler.num_done,
            num_moves=self._moves.num_moves,
            caches=self._cache_counts(),
        )

    def _cache_counts(self) -> CacheCounts:
        if self._caches is not None:
            return self._caches.counts
        prefixes = [instance.prefix_cache for instance in self.instances.values()]
        return CacheCounts(
            encoder_hits=sum(instance.encoder_cache.hits for instance in self.instances.values()),
            prefix_hit_tokens=sum(cache.hit_tokens for cache in prefixes if cache is not None),
        )


def _placement(job: Job) -> Placement:
    placement = job.work.placement
    assert placement is not None, "only of what was dispatched"
    return placement
