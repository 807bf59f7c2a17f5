"""What goes into an engine and what a step of it gives back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from core.costs import EMPTY_SHAPE, StepShape
from core.prompt_order import ENCODINGS, PROMPT_ORDERS, Encoding, PromptOrder
from core.sequence import FinishReason, TokenLogprobs

Key = tuple[str, int]  # SequenceSpec.key

# Told on the engine thread, once per item: embeddings of these items are needed, and none is on its way.
ItemsNeeded = Callable[[Key, tuple[int, ...]], None]


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Limits of one engine; raises ValueError naming a field that makes no sense."""

    max_batch_tokens: int = (
        512  # rows of one step, decodes and prefill chunks together; a short rest may go over it
    )
    max_sequences: int = 64  # sequences that hold blocks and run at a time
    block_tokens: int = 16
    prompt_order: PromptOrder = "text-first"
    encoding: Encoding = "pipelined"

    def __post_init__(self) -> None:
        for name in ("max_batch_tokens", "max_sequences", "block_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: must be at least 1")
        if self.prompt_order not in PROMPT_ORDERS:
            raise ValueError(f"prompt_order: must be one of {', '.join(PROMPT_ORDERS)}")
        if self.encoding not in ENCODINGS:
            raise ValueError(f"encoding: must be one of {', '.join(ENCODINGS)}")


@dataclass(frozen=True, slots=True)
class TokenOutput:
    """One new token; read by the stage runtime."""

    key: Key
    index: int  # over all outputs, spec.outputs included
    token_id: int
    logprobs: TokenLogprobs | None = None
    finish: FinishReason | None = None
    handed_over: bool = False  # blocks are kept for the transfer until release(key)


@dataclass(frozen=True, slots=True)
class DecodeState:
    """A decoding sequence between two steps: with its KV, all that another engine needs to go on."""

    block_ids: tuple[int, ...]
    num_tokens: int  # that have KV: all but the newest
    most_tokens: int  # that could have KV when the sequence has ended
    outputs: tuple[int, ...]
    num_restarts: int  # times its KV was forgotten: what was read of it before is void


class NotDecoding(RuntimeError):
    """A sequence cannot be looked at or frozen now; `str()` says why."""


@dataclass(frozen=True, slots=True)
class SequenceFailure:
    """A sequence that cannot go on here; everything of it is freed."""

    key: Key
    reason: str
    is_retryable: bool  # it could go on elsewhere, or later
    field: str = ""  # the part of the request that is at fault, where one is


@dataclass(frozen=True, slots=True)
class PrefillChunk:
    """Prompt tokens whose KV this step computed."""

    key: Key
    first_token: int
    num_tokens: int


# What a listener is told of: the hand-over chunks of a step.
WrittenChunk = PrefillChunk


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """Sequences that do not stand still."""

    num_prefilling: int
    num_decoding: int
    prefill_waiting_tokens: int  # those without embeddings included


@dataclass(frozen=True, slots=True)
class StepOutput:
    tokens: tuple[TokenOutput, ...] = ()
    failed: tuple[SequenceFailure, ...] = ()
    prefilled: tuple[PrefillChunk, ...] = ()
    preempted: tuple[Key, ...] = ()
    late: tuple[Key, ...] = ()  # decodes whose format had no mask in time: they run again
    num_decode_tokens: int = 0
    num_prefill_tokens: int = 0
    num_context_tokens: int = 0  # sum over the batch of tokens attended to
    shape: StepShape = EMPTY_SHAPE
    duration_s: float = 0.0

    @property
    def num_tokens(self) -> int:
        return self.num_decode_tokens + self.num_prefill_tokens


class EngineListener(Protocol):
    """Told of KV while a step runs, on the engine thread."""

    def on_layers_written(self, layers: range, chunks: Sequence[WrittenChunk]) -> None:
        """KV of `layers` for the step's hand-over chunks is in the pool; each layer comes once, in order."""
        ...
