"""A client's call as the domain sees it: what was asked, unset kept apart from zero."""

from __future__ import annotations

from dataclasses import dataclass, field

from coordinator.access.principal import Principal
from coordinator.tracing.parent import TraceParent
from core.cache.scope import CacheScope
from core.output_format import OutputFormat

# Of a picture with OpenAI's detail "low"; the others are as the processor is set.
LOW_DETAIL_PIXELS = 512 * 512


@dataclass(frozen=True, slots=True)
class ImageSource:
    """Where a picture comes from; exactly one is set in a valid call."""

    digest: bytes | None = None
    data: bytes | None = field(default=None, repr=False)
    url: str | None = None
    max_pixels: int | None = None  # that the model reads of it; None: as the processor is set

    @property
    def kind(self) -> str | None:
        """The name of the field that is set."""
        for name in ("digest", "data", "url"):
            if getattr(self, name) is not None:
                return name
        return None


@dataclass(frozen=True, slots=True)
class ChatPart:
    """Text or a picture; neither is set where the client sent an empty part."""

    text: str | None = None
    image: ImageSource | None = None


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model is told of."""

    name: str
    description: str = ""
    parameters: str = ""  # JSON schema of its arguments; empty: none


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a function that an earlier answer made."""

    call_id: str
    name: str
    arguments: str  # a JSON object


@dataclass(frozen=True, slots=True)
class ChatMessage:
    role: str
    parts: tuple[ChatPart, ...]
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""


@dataclass(frozen=True, slots=True)
class RawPrompt:
    """What the model reads as it is; exactly one is set in a valid call."""

    text: str | None = None
    token_ids: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class SamplingWish:
    """Sampling as asked for; None is "no opinion"."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    logprobs: int | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()  # (token id, bias), by token id


@dataclass(frozen=True, slots=True)
class StopWish:
    strings: tuple[str, ...] = ()
    token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False


@dataclass(frozen=True, slots=True)
class GenerateCall:
    """One Generate call, unchecked."""

    messages: tuple[ChatMessage, ...] = ()
    request_id: str = ""
    model: str = ""
    sampling: SamplingWish = SamplingWish()
    stop: StopWish = StopWish()
    tenant: str = ""
    priority: int = 0
    deadline_s: float | None = None
    size_bytes: int = 0  # of the whole message
    cache_scope: CacheScope | None = None  # None: as set for the tenant
    cache_salt: str = ""
    prompt: RawPrompt | None = None  # in the place of messages
    format: OutputFormat | None = None  # None: any text
    tools: tuple[Tool, ...] = ()
    principal: Principal | None = None  # who calls; None: nobody was asked, as while there are no keys
    resumable_s: float = 0.0  # kept for so long while nobody reads; 0: ends with its call
    trace: TraceParent | None = None  # of the call's metadata or headers
