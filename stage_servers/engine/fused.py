"""Modules that do in one pass over the rows what transformers' own do in several.

They stand in for modules of the same form, hold the very same weights under the same names, and
round once where the original rounds at every operation. For prefill and encode, where a pass over
all rows costs real time.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import nn

_SUFFIXES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
_MULTIPLE = 16
_TILE = 16
_TILED_ROWS = 256


class FusedNorm(nn.Module):
    """RMS norm over the last dimension."""

    def __init__(self, original: Any, library: ctypes.CDLL) -> None:
        super().__init__()
        self.weight = original.weight
        self.variance_epsilon = float(original.variance_epsilon)
        self._run = getattr(library, f"rms_norm_{_SUFFIXES[self.weight.dtype]}")
        self._run.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_int64] * 2 + [ctypes.c_float, ctypes.c_int32]
        self._run.restype = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.contiguous()
        out = torch.empty_like(x)
        width = x.shape[-1]
        self._run(
            x.data_ptr(),
            self.weight.data_ptr(),
            out.data_ptr(),
            x.numel() // width,
            width,
            self.variance_epsilon,
            torch.get_num_threads(),
        )
        return out


class FusedGatedMlp(nn.Module):
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, original: Any, library: ctypes.CDLL) -> None:
        super().__init__()
        self.gate_proj = original.gate_proj
        self.up_proj = original.up_proj
        self.down_proj = original.down_proj
        self._run = getattr(library, f"silu_times_{_SUFFIXES[self.gate_proj.weight.dtype]}")
        self._run.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_int64, ctypes.c_int32]
        self._run.restype = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = self.gate_proj(x).contiguous(), self.up_proj(x).contiguous()
        self._run(gate.data_ptr(), up.data_ptr(), gate.data_ptr(), gate.numel(), torch.get_num_threads())
        down: torch.Tensor = self.down_proj(gate)
        return down


class TiledLinear(nn.Module):
    """A product of up to _TILED_ROWS rows on the processor's matrix tiles; torch's own for more.

    torch's take their time from bringing the weights into another order, which few rows do not pay back.
    """

    def __init__(self, original: nn.Linear, library: ctypes.CDLL) -> None:
        super().__init__()
        self.weight = original.weight
        self.bias = original.bias
        self._run = library.linear_bfloat16
        self._run.argtypes = [ctypes.c_void_p] * 5 + [ctypes.c_int64] * 3 + [ctypes.c_int32]
        self._run.restype = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count, width = self.weight.shape
        rows = x.numel() // width
        if rows > _TILED_ROWS:
            return nn.functional.linear(x, self.weight, self.bias)
        x = x.contiguous()
        out = x.new_empty(*x.shape[:-1], count)
        panels = torch.empty((rows + _TILE - 1) // _TILE * _TILE * width // 2)
        self._run(
            x.data_ptr(),
            self.weight.data_ptr(),
            None if self.bias is None else self.bias.data_ptr(),
            out.data_ptr(),
            panels.data_ptr(),
            rows,
            width,
            count,
            torch.get_num_threads(),
        )
        return out


class WholePatches(nn.Module):
    """A convolution whose every window is a whole input: one matrix product, thirty times as fast."""

    def __init__(self, original: nn.Conv3d) -> None:
        super().__init__()
        self.weight = original.weight
        self.bias = original.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[patches, channels, time, height, width] to [patches, out, 1, 1, 1]."""
        rows = nn.functional.linear(x.flatten(1), self.weight.flatten(1), self.bias)
        return rows.view(*rows.shape, 1, 1, 1)


def fuse(model: nn.Module, library: ctypes.CDLL) -> int:
    """Puts fused modules in the place of those they can stand in for; returns how many."""
    made = {name: _stand_in(module, library) for name, module in model.named_modules()}
    found = {name: module for name, module in made.items() if module is not None}
    for name, module in found.items():
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, module)
    return len(found)


def fuse_patches(model: nn.Module) -> int:
    """As `fuse`, but only what needs no library of ours; for devices that it has none for."""
    found = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv3d) and _is_patch_embedding(module)
    ]
    for name, module in found:
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, WholePatches(module))
    return len(found)


def _stand_in(module: nn.Module, library: ctypes.CDLL) -> nn.Module | None:
    if _is_norm(module):
        return FusedNorm(module, library)
    if _is_gated(module):
        return FusedGatedMlp(module, library)
    if type(module) is nn.Linear and _has_tiles_for(module.weight, library):
        return TiledLinear(module, library)
    if isinstance(module, nn.Conv3d) and _is_patch_embedding(module):
        return WholePatches(module)
    return None


def _is_patch_embedding(module: nn.Conv3d) -> bool:
    """transformers feeds these modules single patches, cut out before."""
    is_plain = module.groups == 1 and set(module.dilation) == {1} and set(module.padding) == {0}
    return is_plain and module.kernel_size == module.stride


def _is_norm(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return (
        type(module).__name__.endswith("RMSNorm")
        and hasattr(module, "variance_epsilon")
        and isinstance(weight, torch.Tensor)
        and _can_run(weight, weight.shape[0])
    )


def _is_gated(module: nn.Module) -> bool:
    parts = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    gate = parts[0]
    return (
        all(isinstance(part, nn.Linear) for part in parts)
        and isinstance(gate, nn.Linear)
        and type(getattr(module, "act_fn", None)).__name__ in ("SiLU", "SiLUActivation")
        and _can_run(gate.weight, gate.out_features)
    )


def _has_tiles_for(weight: torch.Tensor, library: ctypes.CDLL) -> bool:
    is_fit = weight.dtype == torch.bfloat16 and not any(size % (2 * _TILE) for size in weight.shape)
    return is_fit and weight.device.type == "cpu" and weight.is_contiguous() and library.has_tiles() != 0


def _can_run(weight: torch.Tensor, width: int) -> bool:
    is_known = weight.device.type == "cpu" and weight.dtype in _SUFFIXES
    return is_known and weight.is_contiguous() and width % _MULTIPLE == 0
