"""The many-rows step on the CPU: prefill chunks through torch's matrix products and, between these, our C++.

transformers' layers do the same in some twenty tensor operations more each, every one a pass over
all rows. Used where fastpath.py is, for steps that are not its own: those of many rows, with media
in them, or with chunks over a long context.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch

from stage_servers.engine.attention.backend import AttentionBackend, OnLayers
from stage_servers.engine.attention.batch import PackedBatch
from stage_servers.engine.families.adapter import FamilyAdapter, MediaRows
from stage_servers.engine.native.build import NativeError

_FUNCTIONS = {torch.float32: "rotate_rows_float32", torch.bfloat16: "rotate_rows_bfloat16"}
_MAX_HEAD_DIM = 512


class _Heads(ctypes.Structure):
    """How the heads of packed rows lie; see rotary.cpp."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("cos", "sin", "slots", "q_norm", "k_norm")),
        *((name, ctypes.c_int32) for name in ("rows", "heads", "kv_heads", "head_dim")),
        ("eps", ctypes.c_float),
    ]


class BulkPath:
    """One model's text layers over many rows. Engine thread only, in inference mode."""

    def __init__(self, family: FamilyAdapter, library: ctypes.CDLL) -> None:
        """For a family that FastPath takes; raises NativeError where heads are too long."""
        self._family = family
        self._text = family.text_model
        self._shape = family.attention_shape
        if self._shape.head_dim > _MAX_HEAD_DIM:
            raise NativeError(f"heads of {self._shape.head_dim} values are longer than {_MAX_HEAD_DIM}")
        self._rotate = getattr(library, _FUNCTIONS[family.model.lm_head.weight.dtype])
        self._rotate.argtypes = [ctypes.c_void_p] * 6 + [ctypes.c_int32]
        self._rotate.restype = None

    def run(
        self,
        token_ids: torch.Tensor,
        positions: torch.Tensor,
        media: MediaRows | None,
        *,
        pool: torch.Tensor,
        batch: PackedBatch,
        attention: AttentionBackend,
        on_layers: OnLayers | None,
        wanted: Sequence[int],
    ) -> torch.Tensor:
        """token_ids [rows], positions [3, rows] to final hidden states [len(wanted), hidden] of those rows.

        `attention.begin` was called for the batch; `on_layers` is told of each layer whose KV is in the pool.
        """
        hidden = self._family.embed(token_ids, media)
        extras = self._family.extras(media)
        cos, sin = self._text.rotary_emb(hidden, positions[:, None])
        cos, sin = cos[0].float().contiguous(), sin[0].float().contiguous()
        for number, layer in enumerate(self._text.layers):
            normed = layer.input_layernorm(hidden)
            query = self._write_kv(
                layer.self_attn, normed, (cos, sin), pool[2 * number : 2 * number + 2], batch
            )
            if on_layers is not None:
                on_layers(range(number, number + 1))
            mixed = attention.attend(number, query).flatten(1)
            hidden = layer.self_attn.o_proj(mixed).add_(hidden)
            hidden = layer.mlp(layer.post_attention_layernorm(hidden)).add_(hidden)
            if media is not None and number < len(extras):
                hidden.index_add_(0, media.rows, extras[number])
        chosen = hidden[torch.tensor(wanted, dtype=torch.int64)]
        normed_rows: torch.Tensor = self._text.norm(chosen)
        return normed_rows

    def _write_kv(
        self,
        attention: Any,
        rows: torch.Tensor,
        angles: tuple[torch.Tensor, torch.Tensor],
        planes: torch.Tensor,
        batch: PackedBatch,
    ) -> torch.Tensor:
        """Puts keys and values into `planes` (K and V); returns the queries [rows, heads, head_dim]."""
        query: torch.Tensor = attention.q_proj(rows)
        key, value = attention.k_proj(rows), attention.v_proj(rows)
        shape = self._shape
        norms = [getattr(attention, name, None) for name in ("q_norm", "k_norm")]
        heads = _Heads(
            *(part.data_ptr() for part in (*angles, batch.slots)),
            *(None if norm is None else norm.weight.data_ptr() for norm in norms),
            len(rows),
            shape.num_heads,
            shape.num_kv_heads,
            shape.head_dim,
            self._family.text_config.rms_norm_eps,
        )
        parts = (query, key, value, planes[0], planes[1])
        self._rotate(ctypes.byref(heads), *(part.data_ptr() for part in parts), torch.get_num_threads())
        return query.view(len(rows), shape.num_heads, shape.head_dim)
