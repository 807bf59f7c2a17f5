"""One accepted request: what it is, how far it is, and where it runs."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field, replace

from coordinator.cache.request_keys import RequestKeys
from coordinator.events import StageSpan
from coordinator.fanout import RequestOutput
from coordinator.migration import Migration
from coordinator.policy.seat import Seat
from coordinator.policy.view import Placement
from coordinator.stage_messages import MediaItem, NeedReport, StageReport
from coordinator.tracing.parent import TraceParent
from core.cache.scope import CacheScope
from core.lifecycle import RequestState, is_final, move
from core.output_format import OutputFormat
from core.sampling import SamplingParams
from core.sequence import CacheUse, MediaSpan, SequenceSpec
from core.stages import ModalityGroup, Stage

_ON_THE_WAY = (RequestState.QUEUED, RequestState.ENCODING, RequestState.PREFILLING, RequestState.DECODING)

_BEFORE_TOKENS = (RequestState.ENCODING, RequestState.PREFILLING)


@dataclass(frozen=True, slots=True)
class PlacedMedia:
    """A media item of the request, its place in the prompt and in the client's message."""

    item: MediaItem
    span: MediaSpan
    field: str  # "messages[0].parts[1].image"


@dataclass(slots=True, eq=False)
class Request:
    """Changed by the dispatcher only."""

    request_id: str
    arrival_s: float  # on the coordinator's clock
    arrival_ns: int  # Unix time
    prompt: tuple[int, ...]
    sampling: SamplingParams
    stop_token_ids: frozenset[int]
    output: RequestOutput
    reserve_tokens: int  # output tokens to reserve blocks for, at most max_tokens
    media: tuple[PlacedMedia, ...] = ()
    priority: int = 0
    tenant: str = "default"
    cache: CacheUse | None = None  # None: nothing is looked up or kept
    scope: CacheScope = CacheScope.TENANT  # what `cache` was made of
    format: OutputFormat | None = None  # None: any text
    trace: TraceParent | None = None  # what the client's call is part of
    keys: RequestKeys | None = None  # what its tokens and media are known by in caches
    conversation: bytes = b""  # the same for all requests of one

    state: RequestState = RequestState.QUEUED
    attempt: int = 0  # names the present dispatch on the wire
    num_attempts: int = 0  # dispatches so far
    outputs_at_dispatch: int = 0
    placement: Placement | None = None
    encoded: set[int] = field(default_factory=set)  # items whose embedding is delivered, or not needed
    recalled: set[int] = field(default_factory=set)  # items without which no further token comes
    is_prefilled: bool = False  # the KV is with the decoder
    migration: Migration | None = None  # under way
    num_moves: int = 0
    moved_s: float | None = None  # since when the present decoder has it; None: since its prefill
    first_dispatched_s: float | None = None  # on the coordinator's clock
    first_token_s: float | None = None
    finished_s: float | None = None  # its last token was here
    queued_s: float = 0.0  # since when it waits, on the coordinator's clock
    dispatched_s: float | None = None  # the newest dispatch; None while it waits
    stages: list[StageSpan] = field(default_factory=list)
    cached_tokens: int = 0  # of the prompt; see `note_stage` for which are counted
    cached_media: set[int] = field(default_factory=set)  # items that were not encoded for it, likewise
    last_loss: str = ""  # why the last attempt ended
    error: str = ""  # why it failed
    seat: Seat | None = None  # in the experiment that ran when it was last dispatched, or ended

    def advance(self, wanted: RequestState) -> None:
        """Moves along the life cycle, through the states a fast report skipped."""
        if self.state in _ON_THE_WAY and wanted in (RequestState.DECODING, RequestState.FINISHED):
            if self.state is RequestState.ENCODING:
                self.state = move(self.state, RequestState.PREFILLING)
            if self.state is RequestState.DECODING and wanted is RequestState.DECODING:
                return
        self.state = move(self.state, wanted)

    @property
    def is_final(self) -> bool:
        return is_final(self.state)

    @property
    def is_running(self) -> bool:
        """Dispatched and not at its end."""
        return self.placement is not None and not self.is_final

    @property
    def media_tokens(self) -> tuple[int, ...]:
        return tuple(media.span.num_tokens for media in self.media)

    @property
    def group(self) -> ModalityGroup:
        return ModalityGroup.MULTIMODAL if self.media else ModalityGroup.TEXT

    @property
    def num_outputs(self) -> int:
        return len(self.output.token_ids)

    @property
    def reserved_outputs(self) -> int:
        """Output tokens that blocks are promised for now; grows with an answer longer than expected."""
        return min(self.sampling.max_tokens, max(self.reserve_tokens, self.num_outputs + 1))

    def sequence(self) -> SequenceSpec:
        return SequenceSpec(
            request_id=self.request_id,
            attempt=self.attempt,
            prompt=self.prompt,
            sampling=self.sampling,
            media=tuple(media.span for media in self.media),
            outputs=tuple(self.output.token_ids),
            stop_token_ids=self.stop_token_ids,
            cache=self.cache,
            format=self.format,
            tenant=self.tenant,
        )

    @property
    def is_decoding(self) -> bool:
        """Whether the decoder has the KV and nothing is expected of earlier stages."""
        return self.state is RequestState.DECODING and self.is_handed_over and self.has_all_reports

    def place(self, placement: Placement, attempt: int) -> None:
        """It is dispatched. What the cached prefix holds of its media is not encoded, unless it is needed."""
        ends = [self.media[index].span.end_token for index in placement.skipped]
        assert max(ends, default=0) <= placement.prefix_tokens, f"skipped beyond the prefix: {placement}"
        self.placement = placement
        self.attempt = attempt
        self.num_attempts += 1
        self.outputs_at_dispatch = self.num_outputs
        self.encoded = set(placement.skipped)
        if not self.outputs_at_dispatch:
            self.cached_tokens, self.cached_media = 0, set(placement.skipped)
        is_encoding = len(self.encoded) < len(self.media)
        self.advance(RequestState.ENCODING if is_encoding else RequestState.PREFILLING)

    def note_need(self, asker: str, report: NeedReport, attached: Container[str]) -> tuple[int, ...]:
        """The items that the asker has to be sent after all, encoded by itself where the one that was to do
        it is not attached any more.

        To prefill, it lacks what the cached prefix should have held. To decode, it gave the sequence's blocks
        to others and its cache has not kept them: then it lacks all that its own prefill was not sent.
        """
        needed = self._may_need(asker, report.attempt) & set(report.item_indices)
        placement = self.placement
        if placement is None or not needed:
            return ()
        self.placement = placement = replace(
            placement,
            encode=tuple(name if name in attached else asker for name in placement.encode),
            skipped=placement.skipped - needed,
        )
        self.encoded -= needed
        if self.state is RequestState.DECODING or self._was_sent_kv(asker, report.attempt):
            self.recalled |= needed
            return tuple(sorted(needed))
        before = placement.prefix_tokens
        left = min(before, *(self.media[index].span.first_token for index in needed))  # at most
        self.placement = replace(placement, prefix_tokens=left, saved_s=placement.saved_s * left / before)
        if not self.outputs_at_dispatch:
            self.cached_media -= needed
        if self.state is RequestState.PREFILLING:
            self.advance(RequestState.ENCODING)
        return tuple(sorted(needed))

    def _may_need(self, asker: str, attempt: int) -> frozenset[int]:
        """Items that the asker was not sent, while their embeddings could be of use."""
        placement = self.placement
        if placement is None:
            return frozenset()
        if self._was_sent_kv(asker, attempt):
            return frozenset(range(len(self.media))) - self.recalled
        is_local = placement.prefill == placement.decode
        is_of_use = self.state in _BEFORE_TOKENS or (is_local and self.state is RequestState.DECODING)
        return placement.skipped if is_of_use else frozenset()

    def _was_sent_kv(self, instance_id: str, attempt: int) -> bool:
        """Whether it decodes there, or is about to, what another instance has computed."""
        assert self.placement is not None
        if attempt != self.attempt:
            return self.is_moving_to(instance_id)
        has_come = self.moved_s is not None or self.placement.prefill != instance_id
        return has_come and self.placement.decode == instance_id

    def note_tokens(self) -> None:
        """It has shown more: what the decoder asked for anew has come, or its cache had it again."""
        if self.recalled and self.is_handed_over:
            self.encoded |= self.recalled
            self.recalled.clear()

    def queue_again(self) -> None:
        """What the present dispatch did is void; what the client has seen stands."""
        self.advance(RequestState.QUEUED)
        self.placement = None
        self.dispatched_s = None
        self.encoded.clear()
        self.recalled.clear()
        self.is_prefilled = False
        self.moved_s = None
        self.output.restart()
        if self.keys is not None:
            spans = [media.span for media in self.media]
            self.keys = self.keys.extended((*self.prompt, *self.output.token_ids), spans)

    def embedding_key(self, item_index: int) -> bytes | None:
        """None where it is not kept."""
        return None if self.keys is None else self.keys.embeddings[item_index]

    def move_to(self, target: str, attempt: int, now_s: float) -> None:
        """Another instance decodes from now on, under its own dispatch number."""
        assert self.placement is not None
        self.placement = replace(self.placement, decode=target)
        self.attempt = attempt
        self.num_moves += 1
        self.moved_s = now_s

    def has_stage(self, stage: Stage, instance_id: str) -> bool:
        """Whether the present dispatch, or a move under way, gives this stage to the instance."""
        return instance_id in self._players(stage) or (
            stage is Stage.DECODE and self.is_moving_to(instance_id)
        )

    def may_make_tokens(self, instance_id: str) -> bool:
        """Whether it has the stage PREFILL or DECODE."""
        placement = self.placement
        if placement is not None and instance_id in (placement.decode, placement.prefill):
            return True
        return self.is_moving_to(instance_id)

    def listens_to(self, attempt: int) -> bool:
        """Whether what is said under this dispatch number counts: nobody but the target of a move, and who
        encodes for it, knows that of the move.
        """
        return attempt == self.attempt or (
            self.migration is not None and attempt == self.migration.new_attempt
        )

    def is_moving_to(self, instance_id: str) -> bool:
        return self.migration is not None and self.migration.target == instance_id

    @property
    def instance_ids(self) -> frozenset[str]:
        """Those of the present dispatch, and the one that it is moving to."""
        placed = frozenset[str]() if self.placement is None else self.placement.instance_ids
        return placed if self.migration is None else placed | {self.migration.target}

    def is_at(self, instance_id: str) -> bool:
        """Whether it holds something there, or is about to."""
        return self.needs(instance_id) or self.is_moving_to(instance_id)

    def _players(self, stage: Stage) -> tuple[str, ...]:
        if self.placement is None:
            return ()
        if stage is Stage.ENCODE:
            return self.placement.encode
        return (self.placement.prefill if stage is Stage.PREFILL else self.placement.decode,)

    def needs(self, instance_id: str) -> bool:
        """Whether work of the present dispatch is still to come from the instance."""
        return bool(self._to_encode(instance_id)) or self._is_to_make_tokens(instance_id)

    def depends_on(self, instance_id: str) -> bool:
        """Whether the present dispatch cannot go on without the instance."""
        is_lacking = any(map(self.lacks, self._to_encode(instance_id)))
        return is_lacking or self._is_to_make_tokens(instance_id)

    def lacks(self, item_index: int) -> bool:
        """Whether the present dispatch cannot go on without this item's embedding.

        Those that are still to come when the first token is out are not needed: the prefill instance had more
        in its cache than was known.
        """
        return item_index not in self.encoded and (not self.has_shown_token or item_index in self.recalled)

    def _to_encode(self, instance_id: str) -> list[int]:
        """Items that are still to come from the instance."""
        encoders = () if self.placement is None else self.placement.encode
        return [i for i, name in enumerate(encoders) if name == instance_id and i not in self.encoded]

    def _is_to_make_tokens(self, instance_id: str) -> bool:
        if self.placement is None:
            return False
        prefills = self.placement.prefill == instance_id and not self.is_handed_over
        return prefills or self.placement.decode == instance_id

    def forgo_embedding(self, item_index: int) -> None:
        """Nothing waits for it."""
        self.encoded.add(item_index)
        self.recalled.discard(item_index)

    def forgo_embeddings(self, instance_id: str) -> None:
        """Nothing waits for what was to come from it, but for what it lacks."""
        self.encoded |= {index for index in self._to_encode(instance_id) if not self.lacks(index)}

    @property
    def has_shown_token(self) -> bool:
        """Whether the first token of the present dispatch is out."""
        return self.num_outputs > self.outputs_at_dispatch

    @property
    def is_handed_over(self) -> bool:
        """Whether the decoder has shown a token, and so holds the KV."""
        return self.num_outputs > self.outputs_at_dispatch + 1

    def note_stage(self, report: StageReport, instance_id: str) -> None:
        """Takes a stage's time, and what a cache spared it, into the story of the request.

        Counted as cached is what the dispatch that made the first token found: later ones go on from tokens
        that were shown, and earlier ones came to nothing. So does what is found by one that was preempted,
        its own KV for the most part. What it said before its instance was lost counts.
        """
        is_counted = not self.outputs_at_dispatch
        if report.stage is Stage.ENCODE:
            self.encoded.add(report.item_index)
            if report.cached_tokens and is_counted and report.item_index not in self.recalled:
                self.cached_media.add(report.item_index)
        if report.stage is Stage.PREFILL:
            if is_counted and not self.is_prefilled:
                self.cached_tokens = report.cached_tokens
            self.is_prefilled = True
        self.stages.append(
            StageSpan(
                stage=report.stage,
                instance_id=instance_id,
                start_ms=(report.start_ns - self.arrival_ns) / 1e6,
                end_ms=(report.end_ns - self.arrival_ns) / 1e6,
                transport=report.transport,
            )
        )

    @property
    def has_all_reports(self) -> bool:
        """Whether all that must be done before the last token has been reported, a move included."""
        is_settled = self.migration is None or not self.migration.has_shown
        return is_settled and self.is_prefilled and len(self.encoded) == len(self.media)
