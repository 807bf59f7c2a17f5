"""Attention on the CPU by our own C++ (native/attention.cpp): reads blocks in place, skips the unseen."""

from __future__ import annotations

import ctypes
from typing import Any

import torch

from stage_servers.engine.attention.backend import AttentionShape, write_rows
from stage_servers.engine.attention.batch import PackedBatch
from stage_servers.engine.native.build import NativeError, load_library

_FUNCTIONS = {torch.float32: "attend_float32", torch.bfloat16: "attend_bfloat16"}
_HEAD_BYTES = 64


class _Rows(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("row_bounds", "lengths", "table")),
        *(
            (name, ctypes.c_int32)
            for name in (
                "segments",
                "table_width",
                "block_tokens",
                "heads",
                "kv_heads",
                "head_dim",
                "is_causal",
            )
        ),
        ("scale", ctypes.c_float),
    ]


def refusal(device: torch.device, dtype: torch.dtype, shape: AttentionShape) -> str | None:
    """Why this backend cannot run there, or None."""
    if device.type != "cpu":
        return "it needs a CPU"
    if dtype not in _FUNCTIONS:
        return f"it does not compute in {dtype}"
    if shape.head_dim * dtype.itemsize % _HEAD_BYTES:
        return f"heads of {shape.head_dim} values in {dtype} are no multiple of {_HEAD_BYTES} bytes"
    try:
        load_library()
    except NativeError as error:
        return str(error)
    return None


class NativeAttention:
    name = "native"

    def __init__(self, shape: AttentionShape) -> None:
        self._shape = shape
        self._pool = torch.empty(0)
        self._batch: PackedBatch | None = None
        self._rows = _Rows()

    def begin(self, pool: torch.Tensor, batch: PackedBatch) -> None:
        self._pool, self._batch = pool, batch
        table, shape = batch.block_table, self._shape
        self._rows = _Rows(
            batch.row_bounds.data_ptr(),
            batch.context_lengths.data_ptr(),
            table.data_ptr(),
            len(batch.segments),
            table.shape[1],
            batch.block_tokens,
            shape.num_heads,
            shape.num_kv_heads,
            shape.head_dim,
            True,
            shape.scale,
        )

    def write(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        assert self._batch is not None
        write_rows(self._pool, layer, self._batch.slots, key, value)

    def attend(self, layer: int, query: torch.Tensor) -> torch.Tensor:
        return _attend(self._rows, query, self._pool[2 * layer], self._pool[2 * layer + 1])


def whole_attention(
    module: Any,  # noqa: ARG001 - part of transformers' interface
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,  # noqa: ARG001 - always None here
    *,
    scaling: float,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' interface for encoders: every row sees all; query [1, heads, rows, head_dim]."""
    num_heads, num_rows, head_dim = query.shape[1:]
    bounds = torch.tensor([0, num_rows, num_rows], dtype=torch.int32)
    table = torch.zeros(1, dtype=torch.int32)
    rows = _Rows(
        bounds.data_ptr(),
        bounds[1:].data_ptr(),
        table.data_ptr(),
        1,
        1,
        num_rows,
        num_heads,
        num_heads,
        head_dim,
        False,
        scaling,
    )
    query, key, value = (part[0].transpose(0, 1) for part in (query, key, value))
    return _attend(rows, query, key.contiguous(), value.contiguous())[None], None


def _attend(rows: _Rows, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """query [rows, heads, head_dim]; key and value contiguous, as `rows` describes them."""
    query = query.contiguous()
    out = torch.empty_like(query)
    pointers = (ctypes.c_void_p(part.data_ptr()) for part in (key, value, query, out))
    getattr(load_library(), _FUNCTIONS[query.dtype])(ctypes.byref(rows), *pointers, torch.get_num_threads())
    return out
