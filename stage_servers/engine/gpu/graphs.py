"""Steps as CUDA graphs: the host starts a few instead of hundreds of kernels.

Graphs are captured once for each of some sizes; a step takes the least that has room for it. Decodes alone
are one graph; where there are chunks, whose KV may leave layer by layer, each of some graphs has its layers.
Steps of more rows keep the device busy for longer than the host needs to start their kernels.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from kv_transfer.blocks import blocks_for
from stage_servers.engine.attention.backend import OnLayers
from stage_servers.engine.attention.batch import PackedBatch
from stage_servers.engine.attention.triton_paged import TritonAttention
from stage_servers.engine.device import side_stream, tensor_on
from stage_servers.engine.gpu.inputs import (
    MOST_CHUNK_ROWS,
    MOST_CHUNKS,
    MOST_DECODES,
    PackedStep,
    StepInputs,
    StepSize,
)
from stage_servers.engine.gpu.path import GpuPath

if TYPE_CHECKING:
    from stage_servers.engine.model import Model

_log = logging.getLogger(__name__)

DECODES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, MOST_DECODES)  # of steps without chunks
DECODES_BESIDE = (0, 16, 64, 128, MOST_DECODES)  # of those with chunks
CHUNK_ROWS = (32, 64, 128, 192, 256, 384, MOST_CHUNK_ROWS)
_MOST_ROWS = MOST_CHUNK_ROWS + 64  # with what is surplus, which costs the device time
_PARTS = 4  # of the layers of a step with chunks


@dataclass(frozen=True, slots=True, eq=False)
class _Captured:
    graphs: tuple[torch.cuda.CUDAGraph, ...]
    layers: tuple[range, ...]  # whose KV is written once each of them has run
    attention: TritonAttention  # whose tensors the graphs read, too
    hidden: torch.Tensor  # [rows, hidden]: what the last one leaves


class StepGraphs:
    """Of one engine over one pool. Engine thread only, in inference mode."""

    def __init__(self, model: Model, path: GpuPath, pool: torch.Tensor, block_tokens: int) -> None:
        self._model = model
        self._path = path
        self._pool = pool
        self._block_tokens = block_tokens
        width = min(pool.shape[1], blocks_for(model.context_tokens, block_tokens))
        pair_rows = self._attention().chunk_rows(pool.dtype)
        self._inputs = StepInputs(model.family, model.device, width, pair_rows)
        self._captured: dict[StepSize, _Captured] = {}
        self._memory: Any = None  # all graphs work in the same: one runs at a time
        self._has_chunks = True
        self.num_replays = 0  # of steps of decodes alone
        self.num_chunk_replays = 0

    @property
    def sizes(self) -> frozenset[StepSize]:
        """Of what was captured."""
        return frozenset(self._captured)

    def size_for(self, batch: PackedBatch) -> StepSize | None:
        """None where the step must be started kernel by kernel."""
        num_chunks = len(batch.segments) - batch.num_decodes
        if batch.width > self._inputs.width or num_chunks > (MOST_CHUNKS if self._has_chunks else 0):
            return None
        return size_of(batch.num_decodes, batch.num_rows - batch.num_decodes)

    def run(
        self,
        size: StepSize,
        step: PackedStep,
        wanted: Sequence[int],
        on_layers: OnLayers | None,
    ) -> torch.Tensor:
        """Final hidden states [len(wanted), hidden].

        They are good until the next call. `size` is that of `size_for`; `on_layers` is told when the KV of
        layers is in the device's queue to the pool.
        """
        captured = self._captured.get(size) or self._capture(size)
        count = step.batch.num_decodes
        is_all = len(wanted) == step.batch.num_rows and not size.chunk_rows
        rows = [row if row < count else row + size.decodes - count for row in wanted]
        places = None if is_all else tensor_on(self._model.device, rows, torch.int64)
        self._inputs.fill(size, step)
        for graph, layers in zip(captured.graphs, captured.layers, strict=True):
            graph.replay()
            if on_layers is not None:
                on_layers(layers)
        if size.chunk_rows:
            self.num_chunk_replays += 1
        else:
            self.num_replays += 1
        return captured.hidden[:count] if places is None else captured.hidden[places]

    def prepare(self, most_decodes: int, most_rows: int) -> None:
        """Captures what steps of up to so many decodes and rows need, before any of them waits for it.

        Raises RuntimeError if not even decodes alone can be captured.
        """
        for size in needed_sizes(most_decodes, most_rows):
            if size in self._captured or (size.chunk_rows and not self._has_chunks):
                continue
            try:
                self._capture(size)
            except RuntimeError as error:
                if not size.chunk_rows:
                    raise
                self._has_chunks = False
                _log.warning("steps with prompts are started kernel by kernel: %s", error)

    def _attention(self) -> TritonAttention:
        return TritonAttention(self._model.family.attention_shape)

    def _capture(self, size: StepSize) -> _Captured:
        device, attention = self._model.device, self._attention()
        attention.begin_rows(self._pool, self._inputs.rows(size), self._block_tokens)
        self._inputs.clear()
        here = torch.cuda.current_stream(device)
        aside = side_stream(device)
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            for _ in compute(
                self._path, self._inputs, size, self._pool, attention
            ):  # what is made at first use is made now
                pass
        here.wait_stream(aside)
        graphs: list[torch.cuda.CUDAGraph] = []
        parts = compute(self._path, self._inputs, size, self._pool, attention)
        layers = tuple(_parts(self._path.num_layers, size))
        hidden: torch.Tensor | None = None
        for _ in layers:
            graph = torch.cuda.CUDAGraph()
            # Other threads may use the device meanwhile.
            with torch.cuda.graph(graph, pool=self._memory, stream=aside, capture_error_mode="thread_local"):
                hidden = next(parts)
            self._memory = graph.pool()
            graphs.append(graph)
        assert hidden is not None
        captured = self._captured[size] = _Captured(tuple(graphs), layers, attention, hidden)
        return captured


def compute(
    path: GpuPath, inputs: StepInputs, size: StepSize, pool: torch.Tensor, attention: TritonAttention
) -> Iterator[torch.Tensor | None]:
    """What is captured, part by part; with the last come the final hidden states [rows, hidden].

    `attention` has begun the rows of that size.
    """
    extras, slots = inputs.extras(size), inputs.rows(size).slots
    flow = None
    for layers in _parts(path.num_layers, size):
        if flow is None:
            flow = path.start(inputs.embedded(size), inputs.positions(size))
        for layer in layers:
            path.advance(flow, layer, pool=pool, slots=slots, attention=attention, on_layers=None)
            if layer < len(extras):
                assert flow.added is not None
                flow.added.add_(extras[layer])
        yield path.finish(flow) if layers.stop == path.num_layers else None


def size_of(num_decodes: int, num_chunk_rows: int) -> StepSize | None:
    """The least that has room for them; None if there is none."""
    if not num_chunk_rows:
        decodes = _least(DECODES, num_decodes)
        return None if decodes is None else StepSize(decodes, 0)
    decodes, chunk_rows = _least(DECODES_BESIDE, num_decodes), _least(CHUNK_ROWS, num_chunk_rows)
    if decodes is None or chunk_rows is None or decodes + chunk_rows > _MOST_ROWS:
        return None
    return StepSize(decodes, chunk_rows)


def needed_sizes(most_decodes: int, most_rows: int) -> list[StepSize]:
    """All that steps of up to so many decodes, and so many rows in all, may take."""
    decodes = {size_of(count, 0) for count in range(1, min(most_decodes, most_rows, MOST_DECODES) + 1)}
    chunks = {
        size_of(count, rows)
        for count in {0, 1, *(each + 1 for each in DECODES_BESIDE)}
        if count <= most_decodes
        for rows in {1, *(each + 1 for each in CHUNK_ROWS)}
        if count + rows <= most_rows
    }
    sizes = [size for size in decodes | chunks if size is not None]
    return sorted(sizes, key=lambda size: (size.chunk_rows, size.decodes))


def _least(sizes: Sequence[int], count: int) -> int | None:
    place = bisect_left(sizes, count)
    return sizes[place] if place < len(sizes) else None


def _parts(num_layers: int, size: StepSize) -> Iterator[range]:
    num_parts = min(_PARTS, num_layers) if size.chunk_rows else 1
    for part in range(num_parts):
        yield range(num_layers * part // num_parts, num_layers * (part + 1) // num_parts)
