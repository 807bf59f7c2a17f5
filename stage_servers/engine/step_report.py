"""What a step did, as those outside the engine are told."""

from __future__ import annotations

from collections.abc import Iterable

from core.costs import StepShape, chunk_shape
from stage_servers.engine.batching import Chunk, Selection
from stage_servers.engine.records import PrefillChunk, SequenceFailure, StepOutput, TokenOutput


def report(
    selection: Selection,
    tokens: Iterable[TokenOutput],
    failed: Iterable[SequenceFailure],
    late: Iterable[Chunk],
    duration_s: float,
) -> StepOutput:
    """`duration_s`: of the whole step, in seconds."""
    return StepOutput(
        tokens=tuple(tokens),
        failed=tuple(failed),
        prefilled=tuple(
            PrefillChunk(c.sequence.key, c.first_token, c.num_tokens) for c in selection.prefills
        ),
        preempted=tuple(sequence.key for sequence in selection.preempted),
        late=tuple(chunk.sequence.key for chunk in late),
        num_decode_tokens=len(selection.decodes),
        num_prefill_tokens=sum(chunk.num_tokens for chunk in selection.prefills),
        num_context_tokens=sum(chunk.end_token for chunk in selection.chunks),
        shape=_shape(selection.chunks),
        duration_s=duration_s,
    )


def _shape(chunks: Iterable[Chunk]) -> StepShape:
    shape = StepShape()
    for chunk in chunks:
        shape = shape.plus(chunk_shape(chunk.num_tokens, chunk.first_token))
    return shape
