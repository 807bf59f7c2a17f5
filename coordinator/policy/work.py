"""One request as policies see it, and what it lays on each instance now."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from coordinator.policy.seat import Seat
from coordinator.policy.view import EMBEDDING_BLOCK_TOKENS, Placement, num_blocks
from core.encode_order import SLICE_S
from core.stages import ModalityGroup

PRIORITY_S = 10.0  # a class of priority is worth so many seconds of waiting, so that none starves


@dataclass(frozen=True, slots=True)
class MediaWork:
    """One media item: `encode_s` is predicted device time, `pixels` what has to be preprocessed."""

    num_tokens: int
    pixels: int = 0
    encode_s: float = 0.0
    end_token: int | None = None  # of the prompt's, after its last one; None: not known, so never skipped

    @property
    def embedding_blocks(self) -> int:
        return num_blocks(self.num_tokens, EMBEDDING_BLOCK_TOKENS)


@dataclass(slots=True, eq=False)
class Work:
    """A request's demand and progress. Changed by the driver (dispatcher or simulator) through Books only."""

    request_id: str
    arrival_s: float
    prompt_tokens: int  # media tokens included
    reserve_tokens: int  # output tokens that blocks are promised for
    prefill_s: float = 0.0  # predicted device time of the prompt alone
    media: tuple[MediaWork, ...] = ()
    priority: int = 0
    tenant: str = "default"
    conversation: bytes = b""  # the same for all requests of one; empty: the request alone
    seat: Seat | None = None  # in an experiment, written by that

    placement: Placement | None = None
    encoded: set[int] = field(default_factory=set)  # media items whose embedding is delivered
    num_outputs: int = 0  # tokens shown so far, those of earlier dispatches included
    outputs_at_dispatch: int = 0
    is_prefilled: bool = False  # the first token of this dispatch is out
    is_handed_over: bool = False  # the decoder holds the KV
    moving_to: str | None = None  # a migration under way
    num_moves: int = 0
    num_preemptions: int = 0
    ready_s: float = 0.0  # no dispatch before

    # Of the media, which do not change; asked at every look at the work.
    group: ModalityGroup = field(init=False)  # text-only work and work with media queue apart
    encode_s: float = field(init=False)
    embedding_blocks: int = field(init=False)

    def __post_init__(self) -> None:
        media = self.media
        if not media:
            self.group, self.encode_s, self.embedding_blocks = ModalityGroup.TEXT, 0.0, 0
            return
        self.group = ModalityGroup.MULTIMODAL
        self.encode_s = sum([item.encode_s for item in media])
        self.embedding_blocks = sum([item.embedding_blocks for item in media])

    @property
    def order(self) -> tuple[float, str]:
        """Smaller goes first: arrival, moved forward by priority."""
        return self.arrival_s - PRIORITY_S * self.priority, self.request_id

    @property
    def context_tokens(self) -> int:
        return self.prompt_tokens + self.num_outputs

    @property
    def computed_tokens(self) -> int:
        """Tokens that a dispatch has to prefill: the prompt and what was shown before it."""
        return self.prompt_tokens + self.outputs_at_dispatch

    @property
    def promised_tokens(self) -> int:
        """Tokens that the decoder promises blocks for; grows with an answer longer than expected."""
        shown, reserved = self.num_outputs + 1, self.reserve_tokens
        return self.prompt_tokens + (shown if shown > reserved else reserved)


def left_to_do_s(work: Work, placement: Placement | None = None) -> tuple[float, float]:
    """Device seconds of prefill and of encoding under its placement, or under one it is about to get: what
    caches have of it is left out.
    """
    placement = placement or work.placement
    if placement is None or not (placement.held or placement.skipped or placement.prefix_tokens):
        return work.prefill_s, work.encode_s
    spared = placement.held | placement.skipped
    encode_s = sum([item.encode_s for index, item in enumerate(work.media) if index not in spared])
    return work.prefill_s - placement.saved_s, encode_s


def are_small(work: Work, items: Iterable[int]) -> bool:
    """Whether encoders let all of these items pass large ones."""
    return all(work.media[index].encode_s <= SLICE_S for index in items)


@dataclass(slots=True)
class Share:
    """What work, of one request or summed over several, lies on one instance."""

    kv_blocks: int = 0
    embedding_blocks: int = 0
    encode_items: int = 0
    encode_tokens: int = 0
    encode_s: float = 0.0
    small_s: float = 0.0  # of encode_s, what small items take: they pass the others
    prefills: int = 0
    prefill_tokens: int = 0
    media_tokens: int = 0  # those of them of prompts with media
    prefill_s: float = 0.0
    sequences: int = 0  # that decode here, or will
    decoding: int = 0  # those of them whose KV is here
    context_tokens: int = 0  # of those

    def add(self, other: Share, sign: int = 1) -> None:
        """Seconds start at exactly zero again where nothing is left, so that rounding does not pile up."""
        self.kv_blocks += sign * other.kv_blocks
        self.embedding_blocks += sign * other.embedding_blocks
        if other.encode_items:
            self.encode_items += sign * other.encode_items
            self.encode_tokens += sign * other.encode_tokens
            self.encode_s = self.encode_s + sign * other.encode_s if self.encode_items else 0.0
            self.small_s = self.small_s + sign * other.small_s if self.encode_items else 0.0
        if other.prefills:
            self.prefills += sign * other.prefills
            self.prefill_tokens += sign * other.prefill_tokens
            self.media_tokens += sign * other.media_tokens
            self.prefill_s = self.prefill_s + sign * other.prefill_s if self.prefills else 0.0
        self.sequences += sign * other.sequences
        if other.decoding:
            self.decoding += sign * other.decoding
            self.context_tokens += sign * other.context_tokens

    def add_waiting(self, work: Work, sign: int = 1) -> None:
        """Of work that waits for dispatch: of fields that do not change meanwhile."""
        if work.media:
            self.encode_items += sign * len(work.media)
            self.encode_s = self.encode_s + sign * work.encode_s if self.encode_items else 0.0
        self.prefills += sign
        self.prefill_tokens += sign * work.prompt_tokens
        self.prefill_s = self.prefill_s + sign * work.prefill_s if self.prefills else 0.0

    def replace(self, before: Share, after: Share) -> None:
        """Takes off the one and adds the other, which is mostly the same but for a few numbers."""
        self.kv_blocks += after.kv_blocks - before.kv_blocks
        self.embedding_blocks += after.embedding_blocks - before.embedding_blocks
        if before.encode_items:
            self.encode_items -= before.encode_items
            self.encode_tokens -= before.encode_tokens
            self.encode_s = self.encode_s - before.encode_s if self.encode_items else 0.0
            self.small_s = self.small_s - before.small_s if self.encode_items else 0.0
        if after.encode_items:
            self.encode_items += after.encode_items
            self.encode_tokens += after.encode_tokens
            self.encode_s += after.encode_s
            self.small_s += after.small_s
        if before.prefills:
            self.prefills -= before.prefills
            self.prefill_tokens -= before.prefill_tokens
            self.media_tokens -= before.media_tokens
            self.prefill_s = self.prefill_s - before.prefill_s if self.prefills else 0.0
        if after.prefills:
            self.prefills += after.prefills
            self.prefill_tokens += after.prefill_tokens
            self.media_tokens += after.media_tokens
            self.prefill_s += after.prefill_s
        self.sequences += after.sequences - before.sequences
        self.decoding += after.decoding - before.decoding
        self.context_tokens += after.context_tokens - before.context_tokens

    @property
    def passed_s(self) -> float:
        """Of the encoding, what a small item passes: all that is large but for the slice at hand."""
        return max(0.0, self.encode_s - self.small_s - SLICE_S)

    @property
    def text_tokens(self) -> int:
        """Open prompt tokens of text-only prompts."""
        return self.prefill_tokens - self.media_tokens


def shares_of(work: Work, block_tokens: dict[str, int]) -> dict[str, Share]:
    """What the work lays on each instance; `block_tokens` are the instances' KV block sizes.

    Blocks are promised from dispatch on, before the instance has taken them, so that two decisions in a
    row do not give the same block twice. So they are for what caches are said to hold, which may be gone.
    """
    placement = work.placement
    if placement is None:
        return {}
    prefill, decode = placement.prefill, placement.decode
    is_local, is_prefilled, is_handed_over = prefill == decode, work.is_prefilled, work.is_handed_over
    on_prefill = on_decode = Share()
    shares = {decode: on_decode}
    if not (is_local or (is_prefilled and is_handed_over)):
        on_prefill = shares[prefill] = Share()
    if work.media:
        if len(work.encoded) < len(work.media):
            _share_encodes(work, placement, shares)
        if not (is_handed_over and (not is_local or work.num_moves > 0)):
            on_prefill.embedding_blocks = work.embedding_blocks
    if not is_prefilled:
        tokens = work.computed_tokens - placement.prefix_tokens
        on_prefill.prefills = 1
        on_prefill.prefill_tokens = tokens
        on_prefill.media_tokens = tokens if work.media else 0
        on_prefill.prefill_s = work.prefill_s - placement.saved_s
    if not (is_local or is_handed_over) and prefill in block_tokens:
        on_prefill.kv_blocks = num_blocks(work.computed_tokens, block_tokens[prefill])
    if decode in block_tokens:
        on_decode.kv_blocks += num_blocks(work.promised_tokens, block_tokens[decode])
    on_decode.sequences = 1
    if is_prefilled:
        on_decode.decoding = 1
        on_decode.context_tokens = work.context_tokens
    target = work.moving_to
    if target is not None and target != decode and target in block_tokens:  # both ends promise its blocks
        shares.setdefault(target, Share()).kv_blocks += num_blocks(work.promised_tokens, block_tokens[target])
    return shares


def _share_encodes(work: Work, placement: Placement, shares: dict[str, Share]) -> None:
    """Of the media that are not encoded yet and have to be."""
    for index, encoder in enumerate(placement.encode):
        if index not in work.encoded and index not in placement.held and index not in placement.skipped:
            if encoder not in shares:
                shares[encoder] = Share()
            on_encoder, item = shares[encoder], work.media[index]
            on_encoder.encode_items += 1
            on_encoder.encode_tokens += item.num_tokens
            on_encoder.encode_s += item.encode_s
            on_encoder.small_s += item.encode_s if item.encode_s <= SLICE_S else 0.0
