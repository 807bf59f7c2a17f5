"""The one interface between the model code and the paged pool."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from stage_servers.engine.attention.batch import PackedBatch

# The name under which transformers knows our attention. It must not contain "flash":
# transformers would take that for its own flash attention.
INTERFACE_NAME = "elasticmm_paged"
ENCODER_INTERFACE_NAME = "elasticmm_whole"

OnLayers = Callable[[range], None]  # told of layers whose KV is written, each once and in order


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """What a backend must know of the model."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    scale: float


class AttentionBackend(Protocol):
    """Attends packed rows to the pool. One object per engine, called on its thread.

    The runner calls `begin` once per step; then, for every layer in order, the
    model's attention calls `write` and then `attend`.
    """

    name: str

    def begin(self, pool: torch.Tensor, batch: PackedBatch) -> None:
        """pool: [2 * layers, blocks, block_tokens, kv_heads * head_dim], a layer's V behind its K."""
        ...

    def write(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """key, value: [rows, kv_heads, head_dim]; stored at the batch's slots."""
        ...

    def attend(self, layer: int, query: torch.Tensor) -> torch.Tensor:
        """query: [rows, heads, head_dim]; returns the same shape, each row having seen its
        sequence's tokens up to its own."""
        ...


@dataclass(frozen=True, slots=True)
class PagedStep:
    """What the model code carries to every attention layer of one step."""

    backend: AttentionBackend
    on_layers: OnLayers | None = None


def write_rows(
    pool: torch.Tensor, layer: int, slots: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> None:
    """Stores [rows, kv_heads, head_dim] keys and values at token slots [rows]."""
    for plane, rows in ((2 * layer, key), (2 * layer + 1, value)):
        pool[plane].flatten(0, 1).index_copy_(0, slots, rows.reshape(len(slots), -1))


def register() -> None:
    """Makes the paged attention known to transformers; may be called again."""
    from transformers import AttentionInterface

    from stage_servers.engine.attention.native import whole_attention

    AttentionInterface.register(INTERFACE_NAME, paged_attention)
    AttentionInterface.register(ENCODER_INTERFACE_NAME, whole_attention)


def paged_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,  # noqa: ARG001 - part of transformers' interface; always None here
    *,
    paged: PagedStep,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface: query [1, heads, rows, head_dim] to [1, rows, heads, head_dim]."""
    paged.backend.write(module.layer_idx, key[0].transpose(0, 1), value[0].transpose(0, 1))
    if paged.on_layers is not None:
        paged.on_layers(range(module.layer_idx, module.layer_idx + 1))
    return paged.backend.attend(module.layer_idx, query[0].transpose(0, 1))[None], None
