"""Decode steps as CUDA graphs: the host starts one instead of hundreds of kernels.

A graph is captured once for each of some batch sizes; a step takes the next larger one, whose surplus rows
have no slot and no context. What it reads lies in tensors of its own that every step fills anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from kv_transfer.blocks import blocks_for
from stage_servers.engine.attention.batch import DecodeRows, PackedBatch
from stage_servers.engine.attention.triton_paged import TritonAttention
from stage_servers.engine.device import moved_to, side_stream
from stage_servers.engine.gpu.path import GpuPath

if TYPE_CHECKING:
    from stage_servers.engine.model import Model

SIZES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256)


@dataclass(frozen=True, slots=True, eq=False)
class _Captured:
    graph: torch.cuda.CUDAGraph
    tokens: torch.Tensor  # [2, rows] int64: token, position
    rows: DecodeRows
    attention: TritonAttention  # whose tensors the graph reads, too
    hidden: torch.Tensor  # [rows, hidden]: what it leaves


class DecodeGraphs:
    """Of one engine over one pool. Engine thread only, in inference mode."""

    def __init__(self, model: Model, path: GpuPath, pool: torch.Tensor, block_tokens: int) -> None:
        self._model = model
        self._path = path
        self._pool = pool
        self._block_tokens = block_tokens
        self._width = min(pool.shape[1], blocks_for(model.context_tokens, block_tokens))
        self._captured: dict[int, _Captured] = {}
        self._memory: Any = None  # all graphs work in the same: one runs at a time
        self.num_replays = 0

    def can_run(self, batch: PackedBatch) -> bool:
        return batch.num_rows <= SIZES[-1] and batch.width <= self._width

    def run(self, token_ids: torch.Tensor, positions: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
        """token_ids, positions [rows], on the host, to final hidden states [rows, hidden].

        They are good until the next call.
        """
        size = next(size for size in SIZES if size >= batch.num_rows)
        captured = self._captured.get(size) or self._capture(size)
        count, rows = batch.num_rows, captured.rows
        device = self._model.device
        captured.tokens[:, :count].copy_(moved_to(device, torch.stack([token_ids, positions])))
        rows.block_table[:count, : batch.width].copy_(batch.block_table)
        rows.slots[:count].copy_(batch.slots)
        rows.context_lengths[:count].copy_(batch.context_lengths)
        rows.slots[count:].fill_(-1)
        rows.context_lengths[count:].zero_()
        captured.graph.replay()
        self.num_replays += 1
        return captured.hidden[:count]

    def prepare(self, most_rows: int) -> None:
        """Captures what steps of up to so many rows need, before any of them waits for it."""
        for size in SIZES:
            if size not in self._captured:
                self._capture(size)
            if size >= most_rows:
                break

    def _capture(self, size: int) -> _Captured:
        device = self._model.device
        tokens = torch.zeros(2, size, dtype=torch.int64, device=device)
        rows = DecodeRows(
            slots=torch.full((size,), -1, dtype=torch.int32, device=device),
            context_lengths=torch.zeros(size, dtype=torch.int32, device=device),
            block_table=torch.zeros(size, self._width, dtype=torch.int32, device=device),
        )
        attention = TritonAttention(self._model.family.attention_shape)
        attention.begin_decodes(self._pool, rows, self._block_tokens)

        def compute() -> torch.Tensor:
            return self._path.run(
                tokens[0],
                tokens[1].expand(3, -1),
                None,
                pool=self._pool,
                slots=rows.slots,
                attention=attention,
                on_layer=None,
                wanted=None,
            )

        here = torch.cuda.current_stream(device)
        aside = side_stream(device)
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            compute()  # what is made at first use is made now
        here.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the device meanwhile.
        with torch.cuda.graph(graph, pool=self._memory, stream=aside, capture_error_mode="thread_local"):
            hidden = compute()
        self._memory = graph.pool()
        captured = self._captured[size] = _Captured(graph, tokens, rows, attention, hidden)
        return captured
