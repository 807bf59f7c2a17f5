"""Which attention backend runs: what the device has, or what a setting demands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from core.families.folder import ModelError
from stage_servers.engine.attention import flash, native, triton_paged
from stage_servers.engine.attention.backend import AttentionBackend, AttentionShape
from stage_servers.engine.attention.flash import FlashAttention
from stage_servers.engine.attention.native import NativeAttention
from stage_servers.engine.attention.sdpa import SdpaAttention
from stage_servers.engine.attention.triton_paged import TritonAttention

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class _Entry:
    make: Callable[[AttentionShape], AttentionBackend]
    refusal: Callable[
        [torch.device, torch.dtype, AttentionShape], str | None
    ]  # why it cannot run there, or None
    is_automatic: Callable[[], bool] = lambda: True


# Best first.
_BACKENDS = {
    "flash_attn": _Entry(FlashAttention, flash.refusal, lambda: flash.generation() == 3),
    "triton": _Entry(TritonAttention, triton_paged.refusal),
    "native": _Entry(NativeAttention, native.refusal),
    "sdpa": _Entry(SdpaAttention, lambda _device, _dtype, _shape: None),
}


def backend_names() -> tuple[str, ...]:
    return tuple(_BACKENDS)


def choose(wanted: str, device: torch.device, dtype: torch.dtype, shape: AttentionShape) -> str:
    """The backend's name; raises ModelError if `wanted` is unknown or cannot run on the device."""
    if wanted == AUTO:
        runnable = (
            name
            for name, entry in _BACKENDS.items()
            if entry.is_automatic() and entry.refusal(device, dtype, shape) is None
        )
        return next(runnable)
    if wanted not in _BACKENDS:
        raise ModelError(f"attention: unknown backend {wanted!r} (known: {AUTO}, {', '.join(_BACKENDS)})")
    reason = _BACKENDS[wanted].refusal(device, dtype, shape)
    if reason is not None:
        raise ModelError(f"attention: {wanted} cannot run on {device}: {reason}")
    return wanted


def make(name: str, shape: AttentionShape) -> AttentionBackend:
    return _BACKENDS[name].make(shape)
