"""The few-rows step: decodes run through one native call instead of hundreds of tensor operations.

A decode step should take the time of reading the weights once. transformers' layers spend as much
again on the small operations between the matrix products, and general matrix products are slow for
a few rows. So where a family's text layers have the usual form (see decode.cpp), steps of few rows
take this way; all others run transformers' code. Both read the same mapped weights.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch

from stage_servers.engine.attention.batch import PackedBatch
from stage_servers.engine.families.adapter import FamilyAdapter
from stage_servers.engine.native.build import NativeError

_MAX_ROWS = 32  # of vectors, by which a product of more rows takes longer than torch's
_MAX_ROWS_TILED = 128  # where the processor multiplies matrix tiles
_MAX_PAIRS = 8_192
_STEPS = {torch.float32: "step_float32", torch.bfloat16: "step_bfloat16"}
_MULTIPLE = {torch.float32: 16, torch.bfloat16: 32}  # what widths must divide by
_MAX_HEADS = 256
_MAX_HEADS_PER_KV = 16

_WEIGHTS = (
    ("norm1", "input_layernorm.weight"),
    ("q", "self_attn.q_proj.weight"),
    ("k", "self_attn.k_proj.weight"),
    ("v", "self_attn.v_proj.weight"),
    ("o", "self_attn.o_proj.weight"),
    ("q_bias", "self_attn.q_proj.bias"),
    ("k_bias", "self_attn.k_proj.bias"),
    ("v_bias", "self_attn.v_proj.bias"),
    ("o_bias", "self_attn.o_proj.bias"),
    ("q_norm", "self_attn.q_norm.weight"),
    ("k_norm", "self_attn.k_norm.weight"),
    ("norm2", "post_attention_layernorm.weight"),
    ("gate", "mlp.gate_proj.weight"),
    ("up", "mlp.up_proj.weight"),
    ("down", "mlp.down_proj.weight"),
)
_OPTIONAL = ("q_bias", "k_bias", "v_bias", "o_bias", "q_norm", "k_norm")

# Of a text layer of the usual form.
LAYER_PARAMETERS = frozenset(path for _, path in _WEIGHTS)


class _Layer(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name, _ in _WEIGHTS]


class _Shape(ctypes.Structure):
    _fields_ = [
        *(
            (name, ctypes.c_int32)
            for name in ("layers", "hidden", "heads", "kv_heads", "head_dim", "ffn", "vocabulary", "max_rows")
        ),
        ("eps", ctypes.c_float),
        ("scale", ctypes.c_float),
    ]


class _Batch(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("cos", "sin", "slots", "table", "lengths")),
        ("plane_elements", ctypes.c_int64),
        *((name, ctypes.c_int32) for name in ("rows", "table_width", "block_tokens")),
    ]


class FastPath:
    """The native step over one model's weights. Engine thread only."""

    name = "native"

    def __init__(self, family: FamilyAdapter, library: ctypes.CDLL, *, max_rows: int | None = None) -> None:
        """For steps of up to `max_rows`; None: as long as that is quicker than the other ways.

        Raises NativeError saying why this model cannot take the native way.
        """
        self._family = family
        self._text = family.text_model
        self._head: torch.Tensor = family.model.lm_head.weight
        self.max_rows = max_rows or _quick_rows(self._head.dtype, library)
        self._shape = _shape_of(family, self.max_rows)
        _check(family, self._shape)
        self._layers = (_Layer * self._shape.layers)(*(_layer_of(layer) for layer in self._text.layers))
        self._step = getattr(library, _STEPS[self._head.dtype])
        self._step.argtypes = (
            [ctypes.c_void_p] * 8 + [ctypes.c_int32] + [ctypes.c_void_p] * 2 + [ctypes.c_int32]
        )
        self._step.restype = None
        library.scratch_floats.restype = ctypes.c_int64
        self._scratch = torch.empty(library.scratch_floats(ctypes.byref(self._shape)))

    def is_quicker(self, num_rows: int, num_pairs: int) -> bool:
        """Whether a step is, this way; `num_pairs` is the sum of tokens that rows of prompts attend to.

        Here every row reads its whole context by itself, while other ways read it once for a chunk.
        """
        return num_rows <= self.max_rows and num_pairs <= _MAX_PAIRS

    def run(
        self,
        token_ids: torch.Tensor,
        positions: torch.Tensor,
        pool: torch.Tensor,
        batch: PackedBatch,
        wanted: Sequence[int],
    ) -> torch.Tensor:
        """token_ids [rows], positions [3, rows] to float32 logits [len(wanted), vocabulary] of those rows."""
        embeds = self._text.embed_tokens(token_ids)
        cos, sin = self._text.rotary_emb(embeds, positions[:, None])
        cos, sin = cos[0].float().contiguous(), sin[0].float().contiguous()
        table, lengths = _per_row(batch)
        chosen = torch.tensor(wanted, dtype=torch.int32)
        logits = torch.empty(len(wanted), self._shape.vocabulary)
        record = _Batch(
            cos.data_ptr(),
            sin.data_ptr(),
            batch.slots.data_ptr(),
            table.data_ptr(),
            lengths.data_ptr(),
            pool[0].numel(),
            batch.num_rows,
            table.shape[1],
            batch.block_tokens,
        )
        self._step(
            ctypes.byref(self._shape),
            self._layers,
            ctypes.byref(record),
            pool.data_ptr(),
            embeds.data_ptr(),
            self._text.norm.weight.data_ptr(),
            self._head.data_ptr(),
            chosen.data_ptr(),
            len(wanted),
            logits.data_ptr(),
            self._scratch.data_ptr(),
            torch.get_num_threads(),
        )
        return logits


def _per_row(batch: PackedBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """(block table [rows, blocks], context lengths [rows]): a row sees its sequence up to itself."""
    if batch.num_rows == len(batch.segments):
        return batch.block_table, batch.context_lengths
    counts = torch.tensor([segment.num_rows for segment in batch.segments])
    lengths = [
        token + 1 for segment in batch.segments for token in range(segment.first_token, segment.num_context)
    ]
    return batch.block_table.repeat_interleave(counts, dim=0), torch.tensor(lengths, dtype=torch.int32)


def _quick_rows(dtype: torch.dtype, library: ctypes.CDLL) -> int:
    is_tiled = dtype == torch.bfloat16 and library.has_tiles()
    return _MAX_ROWS_TILED if is_tiled else _MAX_ROWS


def _shape_of(family: FamilyAdapter, max_rows: int) -> _Shape:
    config = family.text_config
    attention = family.text_model.layers[0].self_attn
    return _Shape(
        config.num_hidden_layers,
        config.hidden_size,
        config.num_attention_heads,
        config.num_key_value_heads,
        attention.head_dim,
        config.intermediate_size,
        family.model.lm_head.weight.shape[0],
        max_rows,
        config.rms_norm_eps,
        attention.scaling,
    )


def _check(family: FamilyAdapter, shape: _Shape) -> None:
    """Raises NativeError naming what the native step cannot do of this model."""
    head = family.model.lm_head.weight
    if not family.has_usual_layers:
        raise NativeError("the family's text layers are not of the usual form")
    if head.device.type != "cpu" or head.dtype not in _STEPS:
        raise NativeError(f"no native step for {head.dtype} on {head.device.type}")
    multiple = _MULTIPLE[head.dtype]
    widths = (shape.hidden, shape.ffn, shape.heads * shape.head_dim, shape.head_dim)
    if any(width % multiple for width in widths):
        raise NativeError(f"a width among {widths} does not divide by {multiple}")
    if shape.heads > _MAX_HEADS or shape.heads // shape.kv_heads > _MAX_HEADS_PER_KV:
        raise NativeError("there are too many heads, or too many share one key")
    if family.text_config.hidden_act != "silu":
        raise NativeError(f"no native step for the activation {family.text_config.hidden_act}")
    wrong = [
        p
        for p in (*family.text_model.layers.parameters(), head)
        if p.dtype != head.dtype or not p.is_contiguous()
    ]
    if wrong:
        raise NativeError("weights are of several dtypes or not contiguous")


def _layer_of(layer: Any) -> _Layer:
    own = dict(layer.named_parameters())
    surplus = own.keys() - LAYER_PARAMETERS
    if surplus:
        raise NativeError(f"the native step knows no {min(surplus)}")
    missing = [path for name, path in _WEIGHTS if path not in own and name not in _OPTIONAL]
    if missing:
        raise NativeError(f"the model's layers lack {missing[0]}")
    return _Layer(*(own[path].data_ptr() if path in own else None for _, path in _WEIGHTS))
