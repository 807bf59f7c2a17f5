"""Where a sender's bytes come from: its pool, or one tensor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch

from kv_transfer.descriptors import Bytes, Copy, End, Part, copies
from kv_transfer.layout import PoolLayout
from kv_transfer.native.copies import EndCopies
from kv_transfer.pool import Pool
from kv_transfer.runs import BlockTable, Run


class Fence(Protocol):
    """Work of the device that must be over before bytes are read (a torch.cuda.Event)."""

    def synchronize(self) -> None: ...


class PlaneSource(Protocol):
    """Read by transports, in their threads; `fence` is called by whoever pushes, in the engine thread."""

    @property
    def layout(self) -> PoolLayout: ...

    @property
    def is_lasting(self) -> bool:
        """Whether the memory stays for many transfers, so that registering it once pays."""

    @property
    def is_on_device(self) -> bool:
        """Whether `read` waits for a copy off a device (else it returns a view at once)."""

    @property
    def elements(self) -> torch.Tensor:
        """The whole memory, flat, on its device."""

    @property
    def host_bytes(self) -> Bytes:
        """The whole memory, [size_bytes]; not for memory of a device."""

    def fence(self) -> Fence | None:
        """Marks the work that wrote what is pushed now."""

    def end(self, heads: range) -> End:
        """This memory, seen as heads that it holds."""

    def read(self, end: End, planes: range, part: Part) -> Bytes:
        """[planes, pieces, tokens, heads, head_bytes] in host memory, a view where that is possible."""


class TensorSource:
    """The memory of a pool, or of an embedding [num_tokens, width], which is a pool of one block."""

    def __init__(self, memory: torch.Tensor, layout: PoolLayout, *, is_lasting: bool = False) -> None:
        """`memory` is contiguous, and as large as whole blocks of the layout."""
        self.layout = layout
        self.is_lasting = is_lasting
        self.elements = memory.detach().view(-1)
        self._num_blocks = self.elements.nbytes // layout.pool_bytes(1)
        self._device_type = self.elements.device.type  # asking torch costs more than reading a block
        self._bytes: Bytes | None = None
        if not self.is_on_device:
            self._bytes = self.elements.view(torch.uint8).numpy()

    @classmethod
    def of_pool(cls, pool: Pool) -> TensorSource:
        return cls(pool.memory, pool.layout, is_lasting=True)

    @classmethod
    def of_tokens(cls, tokens: torch.Tensor, layout: PoolLayout) -> TensorSource:
        """[num_tokens, width], one plane; its tokens are those of block 0."""
        return cls(tokens.contiguous(), replace(layout, block_tokens=max(1, len(tokens))))

    @property
    def is_on_device(self) -> bool:
        return self._device_type != "cpu"

    @property
    def host_bytes(self) -> Bytes:
        if self._bytes is None:
            raise TypeError(f"the memory lies on a device ({self._device_type})")
        return self._bytes

    def fence(self) -> Fence | None:
        if self._device_type != "cuda":
            return None
        event: Fence = torch.cuda.current_stream(self.elements.device).record_event()
        return event

    def end(self, heads: range) -> End:
        return End.of(self.layout, self._num_blocks, heads)

    def read(self, end: End, planes: range, part: Part) -> Bytes:
        if self._bytes is not None:
            return end.view(self._bytes, planes, part)
        view = strided(self.elements, end, planes, part)
        host: Bytes = view.contiguous().cpu().view(torch.uint8).numpy()
        return host.reshape(end.shape(planes, part))


def strided(elements: torch.Tensor, end: End, planes: range, part: Part) -> torch.Tensor:
    """[planes, pieces, tokens, heads, head_elements] of an end's memory on any device, a view."""
    size = elements.itemsize
    *counts, head_bytes = end.shape(planes, part)
    steps = [step // size for step in end.steps(part)[:-1]]
    # The elements may be a part of their storage, from which torch counts.
    start = elements.storage_offset() + end.start(planes, part) // size
    return elements.as_strided([*counts, head_bytes // size], [*steps, 1], start)


def gather(source: PlaneSource, end: End, table: BlockTable, planes: range, tokens: range) -> Bytes:
    """[planes, tokens, heads, head_bytes]: a view of one plane's tokens equally far apart, else a copy."""
    shape = len(planes), len(tokens), end.num_heads, end.head_bytes
    packed, parts = packing(end, table, tokens)
    if len(parts) == len(planes) == 1:
        return source.read(end, planes, parts[0].source).reshape(shape)
    gathered = np.empty(shape, np.uint8)
    flat = gathered.reshape(-1)
    if not source.is_on_device:
        EndCopies(end, source.host_bytes, packed, flat).run(planes, parts, to_plane=0)
        return gathered
    for copy in parts:
        there = packed.view(flat, range(len(planes)), copy.target)
        np.copyto(there, source.read(end, planes, copy.source))
    return gathered


def packing(end: End, table: BlockTable, tokens: range) -> tuple[End, list[Copy]]:
    """Memory that holds these tokens and no more, and the copies from an end's blocks into it."""
    count = len(tokens)
    packed = End.packed(count, end.num_heads, end.head_bytes)
    whole = iter((Run(tokens.start, 0, count),))
    return packed, list(copies(end, table.runs(tokens.start, count), packed, whole))


class LateSource:
    """One tensor [num_tokens, width] that may lie elsewhere by the time it is read: it is asked for once."""

    def __init__(self, layout: PoolLayout, num_tokens: int, tensor: Callable[[], torch.Tensor]) -> None:
        self.layout = replace(layout, block_tokens=max(1, num_tokens))
        self._tensor = tensor
        self._source: TensorSource | None = None

    @property
    def _found(self) -> TensorSource:
        if self._source is None:
            self._source = TensorSource.of_tokens(self._tensor(), self.layout)
        return self._source

    @property
    def is_lasting(self) -> bool:
        return self._found.is_lasting

    @property
    def is_on_device(self) -> bool:
        return self._found.is_on_device

    @property
    def elements(self) -> torch.Tensor:
        return self._found.elements

    @property
    def host_bytes(self) -> Bytes:
        return self._found.host_bytes

    def fence(self) -> Fence | None:
        return self._found.fence()

    def end(self, heads: range) -> End:
        return self._found.end(heads)

    def read(self, end: End, planes: range, part: Part) -> Bytes:
        return self._found.read(end, planes, part)
