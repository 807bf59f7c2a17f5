"""Which attention backend runs: what the device has, or what a setting demands."""

from __future__ import annotations

from collections.abc import Callable

import torch

from core.families import ModelError
from stage_servers.engine.attention.backend import AttentionBackend, AttentionShape
from stage_servers.engine.attention.sdpa import SdpaAttention

AUTO = "auto"


def _refuse_sdpa(device: torch.device, dtype: torch.dtype) -> str | None:  # noqa: ARG001
    return None


# name: (why it cannot run here, or None; how to make it), best first
_BACKENDS: dict[
    str,
    tuple[Callable[[torch.device, torch.dtype], str | None], Callable[[AttentionShape], AttentionBackend]],
] = {
    "sdpa": (_refuse_sdpa, SdpaAttention),
}


def backend_names() -> tuple[str, ...]:
    return tuple(_BACKENDS)


def choose(wanted: str, device: torch.device, dtype: torch.dtype) -> str:
    """The backend's name; raises ModelError if `wanted` is unknown or cannot run on the device."""
    if wanted != AUTO and wanted not in _BACKENDS:
        raise ModelError(f"attention: unknown backend {wanted!r} (known: {AUTO}, {', '.join(_BACKENDS)})")
    for name, (refusal, _) in _BACKENDS.items():
        reason = refusal(device, dtype)
        if name == wanted and reason is not None:
            raise ModelError(f"attention: {name} cannot run on {device}: {reason}")
        if reason is None and wanted in (AUTO, name):
            return name
    raise ModelError(f"attention: no backend runs on {device}")


def make(name: str, shape: AttentionShape) -> AttentionBackend:
    return _BACKENDS[name][1](shape)
