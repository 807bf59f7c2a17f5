"""What the engine and the stages need of a model, whether it computes or only takes its time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

    from core.families import Family
    from core.sequence import MediaSpan
    from stage_servers.engine.batching import Selection
    from stage_servers.engine.families.adapter import PixelInput
    from stage_servers.engine.records import EngineListener


class StepRunner(Protocol):
    """Called by the engine once per step, in its thread."""

    def run(self, selection: Selection) -> torch.Tensor:
        """Logits [chunks that end their sequence, vocabulary], in order of chunks."""
        ...

    def prepare(self, max_sequences: int, max_batch_tokens: int) -> None:
        """Before the first step, while nothing in the pool is of use to anyone."""
        ...


class ServedModel(Protocol):
    """`preprocess` may be called from any thread, the rest from the engine's."""

    path: Path
    description: Family
    device: torch.device
    dtype: torch.dtype
    attention_backend: str

    @property
    def fingerprint(self) -> str: ...

    @property
    def context_tokens(self) -> int: ...

    @property
    def num_layers(self) -> int: ...

    @property
    def num_kv_heads(self) -> int: ...

    @property
    def head_dim(self) -> int: ...

    @property
    def embedding_width(self) -> int:
        """Values per media token."""
        ...

    @property
    def kv_planes(self) -> int: ...

    @property
    def kv_token_elements(self) -> int:
        """Values per token in one plane of the pool."""
        ...

    def preprocess(self, data: bytes, span: MediaSpan) -> PixelInput:
        """Raises MediaError for a picture that is broken or not what the span says."""
        ...

    def encode(self, inputs: Sequence[PixelInput]) -> list[torch.Tensor]:
        """One [num_tokens, embedding_width] per input."""
        ...

    def encode_in_parts(
        self, inputs: Sequence[PixelInput], num_parts: int
    ) -> Iterator[list[torch.Tensor] | None]:
        """As `encode`, in so many parts; None after all but the last."""
        ...

    def padded_tokens(self, sizes: Sequence[int]) -> int:
        """Tokens that are computed for items of these sizes in one batch, padding included."""
        ...

    def positions(self, num_tokens: int, spans: Sequence[MediaSpan]) -> tuple[torch.Tensor, int]:
        """Rotary positions [3, num_tokens] of a prompt, and position minus index of any token after it."""
        ...

    def make_runner(
        self, pool: torch.Tensor, block_tokens: int, listener: EngineListener | None
    ) -> StepRunner: ...

    def note_rest(self) -> None:
        """Nothing could run since the last step or part of an encode, and the engine waited."""
        ...

    def close(self) -> None: ...
