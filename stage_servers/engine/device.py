"""What the engine does differently where the device runs beside the host."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch


def use_device(device: torch.device) -> None:
    """Makes a GPU this thread's own: Triton launches on it, and nothing is put on the first one unasked."""
    if device.type == "cuda":
        torch.cuda.set_device(device)


@cache
def side_stream(device: torch.device) -> torch.cuda.Stream:
    """A GPU's stream for what is captured. One for all: each has libraries' workspaces of its own."""
    stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return stream


def await_device(device: torch.device) -> None:
    """Returns when all that this thread put in the device's queue is over."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def tensor_on(device: torch.device, values: Sequence[Any], dtype: torch.dtype) -> torch.Tensor:
    """`values` on the device; the host does not wait for a GPU to take them."""
    if device.type != "cuda":
        return torch.tensor(values, dtype=dtype, device=device)
    return torch.tensor(values, dtype=dtype, pin_memory=True).to(device, non_blocking=True)


def moved_to(device: torch.device, tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of the host's on the device; the host does not wait for a GPU to take it."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.contiguous().pin_memory().to(device, non_blocking=True)
