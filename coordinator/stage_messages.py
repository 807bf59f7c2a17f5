"""What stage servers and the dispatcher say to each other, as plain records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from core.costs import StepShape
from core.sequence import CacheUse, FinishReason, MediaSpan, SequenceSpec, TokenLogprobs
from core.stages import ModalityGroup, Roles, Stage


@dataclass(frozen=True, slots=True)
class InstanceInfo:
    """How an instance introduced itself."""

    instance_id: str
    epoch: int
    roles: Roles
    group: ModalityGroup
    endpoint: str
    host_id: str
    pid: int
    model_fingerprint: str
    dtype: str
    device: str
    attention_backend: str
    block_tokens: int
    total_kv_blocks: int
    total_embedding_blocks: int
    transports: tuple[str, ...] = ()
    kv_bytes_per_token: int = 0
    max_sequences: int = 0  # of one decode batch; 0: not told


@dataclass(frozen=True, slots=True)
class InstanceLoad:
    encode_waiting: int = 0
    encode_running: int = 0
    prefill_waiting_tokens: int = 0
    sequences_prefilling: int = 0
    sequences_decoding: int = 0
    free_kv_blocks: int = 0
    free_embedding_blocks: int = 0
    leases: int = 0
    quarantined_blocks: int = 0


@dataclass(frozen=True, slots=True)
class TransferCounters:
    """What an instance sent to one peer over one transport, since its process started."""

    peer_instance_id: str
    transport: str  # "" for what failed before one was chosen
    committed: int
    aborted: int
    in_flight: int
    size_bytes: int
    seconds: float
    failures: Mapping[str, int]  # by cause


@dataclass(frozen=True, slots=True)
class NeedReport:
    """An instance needs embeddings that it was not to be sent: their prefix was not in the cache after all,
    or KV that it decoded on had to go.
    """

    request_id: str
    attempt: int
    item_indices: tuple[int, ...]


class CachePool(Enum):
    KV = "kv"
    EMBEDDING = "embedding"


@dataclass(frozen=True, slots=True)
class CacheCounters:
    """What one pool's cache holds, and did since its process started."""

    pool: CachePool
    entries: int = 0
    device_bytes: int = 0
    host_bytes: int = 0
    device_capacity_bytes: int = 0
    host_capacity_bytes: int = 0
    lookups: int = 0  # requests, or media items
    hits: int = 0  # blocks, or embeddings
    hit_bytes: int = 0
    stored: int = 0
    evictions: Mapping[str, int] = field(default_factory=dict)  # by cause: room, age, flush
    refused: int = 0
    saved_s: float = 0.0
    demoted: int = 0
    promoted: int = 0
    pulled: int = 0  # brought from another instance
    pulled_bytes: int = 0


@dataclass(frozen=True, slots=True)
class HeartbeatReport:
    load: InstanceLoad
    roles: Roles
    group: ModalityGroup | None = None  # None: as before
    transfers: tuple[TransferCounters, ...] = ()
    caches: tuple[CacheCounters, ...] = ()


@dataclass(frozen=True, slots=True)
class CacheReport:
    """Keys that came to be kept, and that are kept no more, since the last report; none is in both."""

    stored: tuple[bytes, ...] = ()
    evicted: tuple[bytes, ...] = ()


class TokenRun(NamedTuple):
    """Consecutive tokens of one sequence; `finish` comes with the last of the answer.

    A tuple, as it is made for every token, and frozen dataclasses take several times as long to make.
    """

    request_id: str
    attempt: int
    first_index: int
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...] = ()
    finish: FinishReason | None = None


@dataclass(frozen=True, slots=True)
class StepMeasure:
    """What a step worked on and how long it took; read by the cost model."""

    shape: StepShape
    seconds: float


@dataclass(frozen=True, slots=True)
class StepReport:
    runs: tuple[TokenRun, ...]
    load: InstanceLoad | None = None
    measure: StepMeasure | None = None


@dataclass(frozen=True, slots=True)
class StageReport:
    """A stage of a request is done; Unix time in nanoseconds."""

    request_id: str
    attempt: int
    stage: Stage
    item_index: int
    start_ns: int
    end_ns: int
    transport: str = ""
    cached_tokens: int = 0  # of ENCODE: the item's if its embedding came from a cache
    device_s: float = 0.0  # of ENCODE: the item's share of its batch's time


@dataclass(frozen=True, slots=True)
class FailureReport:
    """A stage of a request failed; `field` is set where the request is at fault."""

    request_id: str
    attempt: int
    stage: Stage | None
    item_index: int
    code: int
    message: str
    field: str = ""


@dataclass(frozen=True, slots=True)
class MigrationReport:
    """How the move of a sequence went, by its source; `reason` says why it stayed."""

    request_id: str
    attempt: int
    new_attempt: int
    has_moved: bool
    reason: str = ""
    pause_ns: int = 0
    size_bytes: int = 0
    transport: str = ""


Report = (
    HeartbeatReport | StepReport | StageReport | FailureReport | MigrationReport | CacheReport | NeedReport
)


@dataclass(frozen=True, slots=True)
class Peer:
    """Where an instance is reached by others."""

    instance_id: str
    endpoint: str
    host_id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class MediaItem:
    """One media item in a gateway's keeping."""

    digest: bytes
    size_bytes: int
    width: int
    height: int
    media_type: str
    endpoint: str
    segment: str
    host_id: str


@dataclass(frozen=True, slots=True)
class RegisteredCommand:
    instance_id: str
    heartbeat_interval_ms: int
    tpot_target_us: int


@dataclass(frozen=True, slots=True)
class EncodeCommand:
    request_id: str
    attempt: int
    media: MediaItem
    span: MediaSpan
    prefill: Peer
    cache: CacheUse | None = None


@dataclass(frozen=True, slots=True)
class PrefillCommand:
    sequence: SequenceSpec
    decode: Peer
    prefix: Peer | None = None  # has the KV of the first prefix_tokens tokens
    prefix_tokens: int = 0


@dataclass(frozen=True, slots=True)
class DecodeCommand:
    sequence: SequenceSpec
    prefill: Peer


@dataclass(frozen=True, slots=True)
class MigrateCommand:
    """To the source; the target knows the sequence under `new_attempt`."""

    request_id: str
    attempt: int
    new_attempt: int
    to: Peer


@dataclass(frozen=True, slots=True)
class CancelCommand:
    request_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class SetRolesCommand:
    """Answered by a heartbeat; work that the instance holds goes on."""

    roles: Roles
    group: ModalityGroup | None = None  # None: as it is


@dataclass(frozen=True, slots=True)
class FlushCacheCommand:
    """Forget what nobody uses; `tenant` empty: everybody's; `pool` None: both."""

    tenant: str = ""
    pool: CachePool | None = None


@dataclass(frozen=True, slots=True)
class SetCacheSharesCommand:
    """The part of every cache that is a tenant's own, 0 to 1, in the place of what was set before."""

    shares: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class StopCommand:
    pass


Command = (
    RegisteredCommand
    | EncodeCommand
    | PrefillCommand
    | DecodeCommand
    | MigrateCommand
    | CancelCommand
    | SetRolesCommand
    | FlushCacheCommand
    | SetCacheSharesCommand
    | StopCommand
)
