"""Where a sender's bytes come from: its pool, or one tensor."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from kv_transfer.layout import PoolLayout
from kv_transfer.pool import Pool, byte_slots

Bytes = npt.NDArray[np.uint8]


class Fence(Protocol):
    """Work of the device that must be over before bytes are read (a torch.cuda.Event)."""

    def synchronize(self) -> None: ...


class PlaneSource(Protocol):
    """Read by transports, in their threads; `fence` is called by whoever pushes, in the engine thread."""

    @property
    def layout(self) -> PoolLayout: ...

    @property
    def slots(self) -> torch.Tensor:
        """All of it, contiguous: [num_planes, num_slots, elements_per_token]."""

    @property
    def is_lasting(self) -> bool:
        """Whether the memory stays for many transfers, so that registering it once pays."""

    @property
    def is_on_device(self) -> bool:
        """Whether `read` waits for a copy off a device (else it returns a view at once)."""

    def fence(self) -> Fence | None:
        """Marks the work that wrote what is pushed now."""

    def read(self, planes: range, first_slot: int, count: int) -> Bytes:
        """[len(planes), count, token_bytes] in host memory, a view where that is possible."""


class TensorSource:
    """Planes of slots in one tensor: a pool's, or an embedding's [1, num_tokens, width]."""

    def __init__(self, tensor: torch.Tensor, layout: PoolLayout, *, is_lasting: bool = False) -> None:
        self.layout = layout
        self.is_lasting = is_lasting
        self.slots = tensor.detach().reshape(layout.num_planes, -1, tensor.shape[-1])
        self._bytes = None if self.is_on_device else byte_slots(self.slots, layout)

    @classmethod
    def of_pool(cls, pool: Pool) -> TensorSource:
        return cls(pool.slots(), pool.layout, is_lasting=True)

    @property
    def is_on_device(self) -> bool:
        return self.slots.device.type != "cpu"

    def fence(self) -> Fence | None:
        if self.slots.device.type != "cuda":
            return None
        event: Fence = torch.cuda.current_stream(self.slots.device).record_event()
        return event

    def read(self, planes: range, first_slot: int, count: int) -> Bytes:
        rows = slice(planes.start, planes.stop), slice(first_slot, first_slot + count)
        if self._bytes is not None:
            return self._bytes[rows]
        host = self.slots[rows].contiguous().cpu()
        array: Bytes = host.view(torch.uint8).numpy()
        return array.reshape(len(planes), count, self.layout.token_bytes)
