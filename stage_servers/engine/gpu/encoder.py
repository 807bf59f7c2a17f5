"""Modules of vision encoders for a GPU: attention over many windows in few calls, few kernels else.

They stand in for transformers' own, hold the very same weights under the same names, and round once where
the original rounds at every operation.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from stage_servers.engine.device import moved_to
from stage_servers.engine.gpu.path import gate, rotate

_WIDTH_MULTIPLE = 64


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """How rows are put together for attention within windows: those of equal length are one batch."""

    batches: tuple[tuple[int, int], ...]  # windows, rows of each; in this order
    order: torch.Tensor | None  # [rows]: which row comes where; None: as they lie
    back: torch.Tensor | None

    @classmethod
    def of(cls, ends: torch.Tensor, device: torch.device) -> Windows:
        """`ends` [windows + 1]: the first row of each window and the end, in host memory."""
        bounds = ends.tolist()
        starts: dict[int, list[int]] = {}
        for start, end in pairwise(bounds):
            if end > start:
                starts.setdefault(end - start, []).append(start)
        batches = tuple((len(those), length) for length, those in starts.items())
        order = torch.cat(
            [
                (torch.tensor(those)[:, None] + torch.arange(length)).flatten()
                for length, those in starts.items()
            ]
        )
        if torch.equal(order, torch.arange(len(order))):
            return cls(batches, None, None)
        return cls(batches, moved_to(device, order), moved_to(device, order.argsort()))


@dataclass(frozen=True, slots=True, eq=False)
class Angles:
    """What layers turn queries and keys by: [rows, head_dim] float32 each, and the rows' own numbers."""

    cos: torch.Tensor
    sin: torch.Tensor
    rows: torch.Tensor


class LastForward:
    """What all layers of an encoder's forward ask for, made once."""

    def __init__(self) -> None:
        self._windows: list[tuple[torch.Tensor, Windows]] = []
        self._angles: tuple[torch.Tensor, Angles] | None = None

    def windows(self, ends: torch.Tensor, device: torch.device) -> Windows:
        for known, windows in self._windows:
            if known is ends:
                return windows
        windows = Windows.of(ends, device)
        self._windows = [*self._windows[-1:], (ends, windows)]  # of whole pictures, and within windows
        return windows

    def angles(self, cos: torch.Tensor, sin: torch.Tensor) -> Angles:
        if self._angles is None or self._angles[0] is not cos:
            rows = torch.arange(len(cos), device=cos.device)
            self._angles = cos, Angles(cos.float().contiguous(), sin.float().contiguous(), rows)
        return self._angles[1]


class PackedAttention(nn.Module):
    """Attention of a vision encoder with rotary positions, within the parts that `cu_seqlens` bounds."""

    def __init__(self, original: Any, last: LastForward, kernels: Any | None) -> None:
        super().__init__()
        self.qkv = original.qkv
        self.proj = original.proj
        self.num_heads = int(original.num_heads)
        self.scaling = float(original.scaling)
        self._last = last
        self._kernels = kernels

    def forward(
        self,
        hidden_states: torch.Tensor,
        cu_seqlens: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        **_: Any,
    ) -> torch.Tensor:
        """[rows, hidden] to the same."""
        windows = self._last.windows(cu_seqlens, hidden_states.device)
        parts = self._rotated(self.qkv(hidden_states), *position_embeddings)
        if windows.order is not None:
            parts = tuple(part[windows.order] for part in parts)
        found = []
        first = 0
        for count, length in windows.batches:
            query, key, value = (
                part[first : first + count * length].view(count, length, *part.shape[1:]).transpose(1, 2)
                for part in parts
            )
            mixed = nn.functional.scaled_dot_product_attention(query, key, value, scale=self.scaling)
            found.append(mixed.transpose(1, 2).reshape(count * length, -1))
            first += count * length
        whole = found[0] if len(found) == 1 else torch.cat(found)
        if windows.back is not None:
            whole = whole[windows.back]
        out: torch.Tensor = self.proj(whole)
        return out

    def _rotated(
        self, projected: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Queries, keys and values [rows, heads, head_dim], the first two turned."""
        parts = projected.view(len(projected), 3, self.num_heads, -1)
        angles = self._last.angles(cos, sin)
        if self._kernels is None:
            query, key = (_turned(parts[:, place], angles) for place in (0, 1))
            return query, key, parts[:, 2]
        query, key, value = (
            projected.new_empty(len(projected), self.num_heads, parts.shape[-1]) for _ in range(3)
        )
        rotate(
            self._kernels,
            projected,
            (angles.cos, angles.sin),
            slots=angles.rows,
            query=query,
            planes=(key, value),
        )
        return query, key, value


def _turned(rows: torch.Tensor, angles: Angles) -> torch.Tensor:
    """[rows, heads, head_dim], each head's pairs (n, n + head_dim / 2) turned; computed in float32."""
    values = rows.float()
    low, high = values.chunk(2, dim=-1)
    turned = values * angles.cos[:, None] + torch.cat([-high, low], dim=-1) * angles.sin[:, None]
    return turned.to(rows.dtype)


class PaddedGatedMlp(nn.Module):
    """down(silu(gate(x)) * up(x)), of a width that matrix products take well.

    Weights end in zeros up to the next multiple, whose products add nothing; those of the original are views.
    """

    def __init__(self, original: Any, kernels: Any) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = (
            original.gate_proj,
            original.up_proj,
            original.down_proj,
        )
        self._kernels = kernels
        width, hidden = self.gate_proj.weight.shape
        padded = -(-width // _WIDTH_MULTIPLE) * _WIDTH_MULTIPLE
        gate_up = self.gate_proj.weight.new_zeros(2, padded, hidden)
        down = self.down_proj.weight.new_zeros(len(self.down_proj.weight), padded)
        bias = None if self.gate_proj.bias is None else gate_up.new_zeros(2, padded)
        for place, module in enumerate((self.gate_proj, self.up_proj)):
            _move(module.weight, gate_up[place, :width])
            if bias is not None:
                _move(module.bias, bias[place, :width])
        _move(self.down_proj.weight, down[:, :width])
        self._gate_up, self._down = gate_up.flatten(0, 1), down
        self._bias = None if bias is None else bias.flatten()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        both = nn.functional.linear(x, self._gate_up, self._bias)
        return nn.functional.linear(gate(self._kernels, both), self._down, self.down_proj.bias)


def _move(parameter: nn.Parameter, to: torch.Tensor) -> None:
    to.copy_(parameter.data)
    parameter.data = to


class RmsNorm(nn.Module):
    """RMS norm over the last dimension."""

    def __init__(self, original: Any) -> None:
        super().__init__()
        self.weight = original.weight
        self.variance_epsilon = float(original.variance_epsilon)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.rms_norm(x, (x.shape[-1],), self.weight, self.variance_epsilon)


def fuse_encoder(vision: nn.Module, kernels: Any | None) -> int:
    """Puts these modules in the place of an encoder's; returns how many. `kernels`: None without Triton."""
    last = LastForward()
    made = {name: _stand_in(module, last, kernels) for name, module in vision.named_modules()}
    found = {name: module for name, module in made.items() if module is not None}
    for name, module in found.items():
        parent, _, child = name.rpartition(".")
        setattr(vision.get_submodule(parent), child, module)
    return len(found)


def _stand_in(module: nn.Module, last: LastForward, kernels: Any | None) -> nn.Module | None:
    name = type(module).__name__
    if name.endswith("VisionAttention") and all(hasattr(module, part) for part in ("qkv", "proj", "scaling")):
        return PackedAttention(module, last, kernels)
    if kernels is not None and _is_gated(module):
        return PaddedGatedMlp(module, kernels)
    if name.endswith("RMSNorm") and hasattr(module, "variance_epsilon"):
        return RmsNorm(module)
    return None


def _is_gated(module: nn.Module) -> bool:
    parts = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    act = type(getattr(module, "act_fn", None)).__name__
    return all(isinstance(part, nn.Linear) for part in parts) and act in ("SiLU", "SiLUActivation")
