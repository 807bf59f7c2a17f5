"""The text layers on a GPU: torch's matrix products, and between these one Triton kernel each.

transformers' layers take some fifty kernels each where this takes nine, and at the rows of a decode step the
host needs longer to start them than the device to run them. For families whose text layers have the usual
form (see fastpath.py); weights stay where transformers' modules look for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from stage_servers.engine.attention.backend import AttentionBackend, OnLayers
from stage_servers.engine.attention.triton_paged import power_of_two
from stage_servers.engine.families.adapter import FamilyAdapter, MediaRows
from stage_servers.engine.fastpath import LAYER_PARAMETERS

_GATE_SIZE = 1024
_FEW_ROWS = 64
_WIDE = 4096  # values that a program of eight warps works on


@dataclass(frozen=True, slots=True)
class _Layer:
    """One layer's weights; those that one product can have together lie behind one another."""

    before: torch.Tensor
    qkv: torch.Tensor
    qkv_bias: torch.Tensor | None
    norms: tuple[torch.Tensor, torch.Tensor] | None  # of queries and keys
    out: torch.Tensor
    out_bias: torch.Tensor | None
    between: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor


@dataclass(slots=True, eq=False)
class Flow:
    """What goes from layer to layer."""

    residual: torch.Tensor  # [rows, hidden], changed in place
    angles: tuple[torch.Tensor, torch.Tensor]  # cos, sin: [rows, head_dim] float32
    added: torch.Tensor | None = None  # [rows, hidden]: what is still to be added


class GpuPath:
    """One model's text layers. Engine thread only, in inference mode; never waits for the device."""

    def __init__(self, family: FamilyAdapter) -> None:
        """For a family that `refusal` has nothing against; moves weights of its layers together."""
        from stage_servers.engine.gpu import kernels

        self._kernels: Any = kernels
        self._family = family
        self._text = family.text_model
        self._shape = family.attention_shape
        self._eps = float(family.text_config.rms_norm_eps)
        self._layers = [_joined(layer) for layer in self._text.layers]

    def run(
        self,
        token_ids: torch.Tensor,
        positions: torch.Tensor,
        media: MediaRows | None,
        *,
        pool: torch.Tensor,
        slots: torch.Tensor,
        attention: AttentionBackend,
        on_layers: OnLayers | None,
        wanted: torch.Tensor | None,
    ) -> torch.Tensor:
        """token_ids [rows], positions [3, rows] to final hidden states of the rows `wanted` (None: of all).

        `slots` [rows]: where keys and values go, nowhere under zero. `attention.begin` was called for the
        batch; `on_layers` is told of each layer whose KV is in the device's queue to the pool.
        """
        extras = self._family.extras(media)
        flow = self.start(self._family.embed(token_ids, media), positions)
        for number in range(self.num_layers):
            self.advance(flow, number, pool=pool, slots=slots, attention=attention, on_layers=on_layers)
            if media is not None and number < len(extras):
                assert flow.added is not None
                flow.added.index_add_(0, media.rows, extras[number])
        return self.finish(flow, wanted)

    @property
    def num_layers(self) -> int:
        return len(self._layers)

    def start(self, embedded: torch.Tensor, positions: torch.Tensor) -> Flow:
        """Of rows embedded as [rows, hidden], which the layers change."""
        cos, sin = self._text.rotary_emb(embedded, positions[:, None])
        return Flow(embedded.contiguous(), (cos[0].float().contiguous(), sin[0].float().contiguous()))

    def advance(
        self,
        flow: Flow,
        number: int,
        *,
        pool: torch.Tensor,
        slots: torch.Tensor,
        attention: AttentionBackend,
        on_layers: OnLayers | None,
    ) -> None:
        """One layer, for the arguments of `run`."""
        layer = self._layers[number]
        normed = self._add_norm(flow.added, flow.residual, layer.before)
        projected = nn.functional.linear(normed, layer.qkv, layer.qkv_bias)
        query = self._rotate(projected, flow.angles, layer, pool[2 * number : 2 * number + 2], slots)
        if on_layers is not None:
            on_layers(range(number, number + 1))
        mixed = attention.attend(number, query).flatten(1)
        mixed = nn.functional.linear(mixed, layer.out, layer.out_bias)
        normed = self._add_norm(mixed, flow.residual, layer.between)
        gated = gate(self._kernels, nn.functional.linear(normed, layer.gate_up))
        flow.added = nn.functional.linear(gated, layer.down)

    def finish(self, flow: Flow, wanted: torch.Tensor | None = None) -> torch.Tensor:
        """Final hidden states of the rows `wanted` (None: of all)."""
        residual, added = flow.residual, flow.added
        assert added is not None
        if wanted is not None:
            residual, added = residual[wanted], added[wanted]
        return self._add_norm(added, residual, self._text.norm.weight)

    def _add_norm(
        self, added: torch.Tensor | None, residual: torch.Tensor, weight: torch.Tensor
    ) -> torch.Tensor:
        out = torch.empty_like(residual)
        rows, width = residual.shape
        self._kernels.add_norm_kernel[(rows,)](
            residual if added is None else added,
            residual,
            weight,
            out,
            width,
            self._eps,
            HAS_SUM=added is not None,
            PADDED=power_of_two(width),
            num_warps=8 if width >= _WIDE else 4,
        )
        return out

    def _rotate(
        self,
        projected: torch.Tensor,
        angles: tuple[torch.Tensor, torch.Tensor],
        layer: _Layer,
        planes: torch.Tensor,
        slots: torch.Tensor,
    ) -> torch.Tensor:
        """Queries [rows, heads, head_dim]; keys and values go into `planes` (K and V)."""
        query = projected.new_empty(len(projected), self._shape.num_heads, self._shape.head_dim)
        rotate(
            self._kernels,
            projected,
            angles,
            slots=slots,
            query=query,
            planes=(planes[0], planes[1]),
            num_kv_heads=self._shape.num_kv_heads,
            norms=layer.norms,
            eps=self._eps,
        )
        return query


def gate(kernels: Any, both: torch.Tensor) -> torch.Tensor:
    """silu(left half) * right half of [rows, 2 * width]."""
    rows, width = len(both), both.shape[1] // 2
    out = both.new_empty(rows, width)
    kernels.gate_kernel[(rows, -(-width // _GATE_SIZE))](both, out, width, SIZE=_GATE_SIZE, num_warps=4)
    return out


def rotate(
    kernels: Any,
    projected: torch.Tensor,
    angles: tuple[torch.Tensor, torch.Tensor],
    *,
    slots: torch.Tensor,
    query: torch.Tensor,
    planes: tuple[torch.Tensor, torch.Tensor],
    num_kv_heads: int | None = None,
    norms: tuple[torch.Tensor, torch.Tensor] | None = None,
    eps: float = 0.0,
) -> None:
    """Takes `projected` [rows, (heads + 2 * kv_heads) * head_dim] apart.

    Queries, normed and turned by `angles` (cos, sin: [rows, head_dim] float32), go into `query`
    [rows, heads, head_dim], keys likewise and values into the planes at `slots` [rows]. As many KV heads as
    heads unless told.
    """
    rows, num_heads, head_dim = query.shape
    num_kv_heads = num_kv_heads or num_heads
    q_norm, k_norm = norms or (projected, projected)
    total = num_heads + 2 * num_kv_heads
    # Few rows are spread over the card; of many, each program takes more.
    heads = 1 if rows <= _FEW_ROWS else 8
    kernels.rotate_kernel[(rows, -(-total // heads))](
        projected,
        *angles,
        q_norm,
        k_norm,
        slots,
        query,
        *planes,
        eps,
        NUM_HEADS=num_heads,
        NUM_KV_HEADS=num_kv_heads,
        HALF=head_dim // 2,
        PADDED=power_of_two(head_dim // 2),
        HEADS=heads,
        HAS_NORMS=norms is not None,
        num_warps=1 if heads == 1 else 4,
    )


def refusal(family: FamilyAdapter) -> str | None:
    """Why the layers of a family cannot go this way, or None."""
    if not family.has_usual_layers:
        return "the family's text layers are not of the usual form"
    if family.text_config.hidden_act != "silu":
        return f"there is no kernel for the activation {family.text_config.hidden_act}"
    unknown = {name for name, _ in family.text_model.layers[0].named_parameters()} - LAYER_PARAMETERS
    if unknown:
        return f"the kernels know no {min(unknown)}"
    if family.attention_shape.head_dim % 2:
        return "heads have an odd number of values"
    return None


def _joined(layer: Any) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    qkv = [attention.q_proj, attention.k_proj, attention.v_proj]
    norms: list[Any] = [getattr(attention, name, None) for name in ("q_norm", "k_norm")]
    return _Layer(
        before=layer.input_layernorm.weight,
        qkv=_join([module.weight for module in qkv]),
        qkv_bias=None if qkv[0].bias is None else _join([module.bias for module in qkv]),
        norms=None if norms[0] is None else (norms[0].weight, norms[1].weight),
        out=attention.o_proj.weight,
        out_bias=attention.o_proj.bias,
        between=layer.post_attention_layernorm.weight,
        gate_up=_join([mlp.gate_proj.weight, mlp.up_proj.weight]),
        down=mlp.down_proj.weight,
    )


def _join(parts: list[nn.Parameter]) -> torch.Tensor:
    """All in one tensor; the parameters become views of it, so that nothing is there twice."""
    whole = torch.cat([part.detach() for part in parts])
    start = 0
    for part in parts:
        part.data = whole[start : start + len(part)]
        start += len(part)
    return whole
