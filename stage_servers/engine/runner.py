"""Runs the chosen chunks as one packed batch through the model."""

from __future__ import annotations

import logging
from collections.abc import Sequence as Seq
from typing import TYPE_CHECKING

import torch

from kv_transfer.blocks import blocks_for
from stage_servers.engine.attention.backend import PagedStep
from stage_servers.engine.attention.batch import PackedBatch, Segment
from stage_servers.engine.batching import Chunk, Selection
from stage_servers.engine.device import moved_to, tensor_on
from stage_servers.engine.families.adapter import MediaRows
from stage_servers.engine.gpu.graphs import StepGraphs
from stage_servers.engine.gpu.inputs import PackedStep
from stage_servers.engine.records import EngineListener, WrittenChunk

_FIRST_ROWS = 128  # of the step that kernels are compiled for: as many as take those of large steps

_log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from stage_servers.engine.model import Model


class Runner:
    """From chunks to logits; writes their KV into the pool."""

    def __init__(
        self, model: Model, pool: torch.Tensor, block_tokens: int, listener: EngineListener | None
    ) -> None:
        self._model = model
        self._pool = pool
        self._block_tokens = block_tokens
        self._listener = listener
        self._attention = model.make_attention()
        self._gpu = model.gpu_path
        self._graphs: StepGraphs | None = None
        if self._gpu is not None:
            self._graphs = StepGraphs(model, self._gpu, pool, block_tokens)

    def run(self, selection: Selection) -> torch.Tensor:
        """Logits [chunks that end their sequence, vocabulary], in order of chunks."""
        chunks = selection.chunks
        batch = self._pack(chunks, len(selection.decodes))
        ends = zip(chunks, batch.segments, strict=True)
        wanted = [segment.first_row + segment.num_rows - 1 for chunk, segment in ends if chunk.is_last]
        token_ids = torch.tensor([token for chunk in chunks for token in _tokens(chunk)])
        positions, media, paged = _positions(chunks), self._media(chunks), self._paged(selection.prefills)
        fast = self._model.fast_path
        num_pairs = sum(
            chunk.num_tokens * (chunk.first_token + chunk.end_token) // 2 for chunk in selection.prefills
        )
        if fast is not None and media is None and fast.is_quicker(batch.num_rows, num_pairs):
            logits = fast.run(token_ids, positions, self._pool, batch, wanted)
            if paged.on_layers is not None:
                paged.on_layers(range(self._model.num_layers))
            return logits
        size = None if self._graphs is None else self._graphs.size_for(batch)
        if self._graphs is not None and size is not None:
            step = PackedStep(batch, token_ids, positions, media)
            hidden = self._graphs.run(size, step, wanted, paged.on_layers)
            return self._model.family.logits(hidden)
        self._attention.begin(self._pool, batch)
        bulk = self._model.bulk_path
        if self._gpu is not None:
            hidden = self._hidden_on_gpu(token_ids, positions, media, paged, batch, wanted)
        elif bulk is not None:
            hidden = bulk.run(
                token_ids,
                positions,
                media,
                pool=self._pool,
                batch=batch,
                attention=self._attention,
                on_layers=paged.on_layers,
                wanted=wanted,
            )
        else:
            hidden = self._hidden(token_ids, positions, media, paged, wanted)
        return self._model.family.logits(hidden)

    @torch.inference_mode()
    def prepare(self, max_sequences: int, max_batch_tokens: int) -> None:
        """Compiles kernels and captures graphs; writes into the first blocks of the pool."""
        if self._graphs is None:
            return
        num_rows = min(_FIRST_ROWS, self._pool.shape[1] * self._block_tokens)
        blocks = tuple(range(blocks_for(num_rows, self._block_tokens)))
        batch = PackedBatch(
            (Segment(0, num_rows, num_rows, blocks),), 0, self._block_tokens, self._model.device
        )
        self._attention.begin(self._pool, batch)
        zeros = torch.zeros(num_rows, dtype=torch.int64)
        self._hidden_on_gpu(
            zeros, zeros.expand(3, -1), None, PagedStep(self._attention), batch, [num_rows - 1]
        )
        try:
            self._graphs.prepare(max_sequences, max_batch_tokens)
        except RuntimeError as error:
            _log.warning("steps are started kernel by kernel: %s", error)
            self._graphs = None

    def _hidden_on_gpu(  # noqa: PLR0917 - as of the ways beside it
        self,
        token_ids: torch.Tensor,
        positions: torch.Tensor,
        media: MediaRows | None,
        paged: PagedStep,
        batch: PackedBatch,
        wanted: Seq[int],
    ) -> torch.Tensor:
        """As `_hidden`, by our own kernels."""
        assert self._gpu is not None
        device = self._model.device
        rows = tensor_on(device, wanted, torch.int64)
        return self._gpu.run(
            moved_to(device, token_ids),
            moved_to(device, positions),
            media,
            pool=self._pool,
            slots=batch.slots,
            attention=self._attention,
            on_layers=paged.on_layers,
            wanted=rows,
        )

    def _hidden(
        self,
        token_ids: torch.Tensor,
        positions: torch.Tensor,
        media: MediaRows | None,
        paged: PagedStep,
        wanted: Seq[int],
    ) -> torch.Tensor:
        """Final hidden states [len(wanted), hidden] by transformers' model code."""
        device = self._model.device
        # All that the device is to know goes there first: later the host would wait for the layers.
        rows = tensor_on(device, wanted, torch.int64)
        token_ids, positions = moved_to(device, token_ids), moved_to(device, positions)
        hidden = self._model.family.forward_text(token_ids, positions, media, paged)
        return hidden if len(wanted) == len(hidden) else hidden[rows]

    def _pack(self, chunks: Seq[Chunk], num_decodes: int) -> PackedBatch:
        segments: list[Segment] = []
        row = 0
        for chunk in chunks:
            segments.append(Segment(row, chunk.num_tokens, chunk.end_token, tuple(chunk.sequence.blocks)))
            row += chunk.num_tokens
        return PackedBatch(segments, num_decodes, self._block_tokens, self._model.device)

    def _media(self, chunks: Seq[Chunk]) -> MediaRows | None:
        rows: list[torch.Tensor] = []
        values: list[torch.Tensor] = []
        first_row = 0
        for chunk in chunks:
            for span in chunk.sequence.spans_between(chunk.first_token, chunk.end_token):
                first = max(span.first_token, chunk.first_token)
                end = min(span.end_token, chunk.end_token)
                embedding = chunk.sequence.embeddings[span.item_index]
                values.append(embedding[first - span.first_token : end - span.first_token])
                rows.append(torch.arange(first, end) + (first_row - chunk.first_token))
            first_row += chunk.num_tokens
        if not rows:
            return None
        return MediaRows(moved_to(self._model.device, torch.cat(rows)), torch.cat(values))

    def _paged(self, prefills: Seq[Chunk]) -> PagedStep:
        listener = self._listener
        chunks = tuple(
            WrittenChunk(chunk.sequence.key, chunk.first_token, chunk.num_tokens)
            for chunk in prefills
            if chunk.sequence.hand_over
        )
        if listener is None or not chunks:
            return PagedStep(self._attention)
        return PagedStep(self._attention, lambda layers: listener.on_layers_written(layers, chunks))


def _tokens(chunk: Chunk) -> list[int]:
    return chunk.sequence.tokens[chunk.first_token : chunk.end_token]


def _positions(chunks: Seq[Chunk]) -> torch.Tensor:
    """[3, rows] rotary positions."""
    if all(
        chunk.first_token >= len(chunk.sequence.spec.prompt) and chunk.num_tokens == 1 for chunk in chunks
    ):
        # Decodes alone, the step that must be quick.
        return torch.tensor([chunk.first_token + chunk.sequence.position_delta for chunk in chunks]).expand(
            3, -1
        )
    parts: list[torch.Tensor] = []
    for chunk in chunks:
        sequence = chunk.sequence
        num_prompt = len(sequence.spec.prompt)
        if chunk.first_token < num_prompt:
            parts.append(sequence.positions[:, chunk.first_token : chunk.end_token])
        if chunk.end_token > num_prompt:
            first = max(chunk.first_token, num_prompt) + sequence.position_delta
            parts.append(torch.arange(first, chunk.end_token + sequence.position_delta).expand(3, -1))
    return torch.cat(parts, dim=1)
