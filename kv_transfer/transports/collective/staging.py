"""Contiguous buffers between blocks and the wire: two slices per pair, whatever is sent."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from kv_transfer.native.copies import EndCopies
from kv_transfer.pool import Pool
from kv_transfer.source import PlaneSource, packing, strided
from kv_transfer.transports.backlog import Batch
from kv_transfer.transports.collective.frames import Frame
from kv_transfer.transports.collective.groups import Lane, NcclLane

NUM_SLOTS = 2  # one is filled or emptied while the other is on the wire
SLICE_BYTES = 4 << 20  # sent for one transfer before the next has its turn


class HostStaging:
    """For lanes between host tensors. Copies without torch, which would start compute threads for them."""

    def __init__(self) -> None:
        self._buffers = [np.empty(0, np.uint8)] * NUM_SLOTS

    def tensor(self, slot: int, size_bytes: int) -> torch.Tensor:
        """The slot's first bytes, [size_bytes]; what it held is lost where it has to grow."""
        if self._buffers[slot].nbytes < size_bytes:
            self._buffers[slot] = np.empty(max(size_bytes, SLICE_BYTES), np.uint8)
        return torch.from_numpy(self._buffers[slot][:size_bytes])

    def gather(self, slot: int, source: PlaneSource, heads: range, batch: Batch) -> torch.Tensor:
        """The batch's bytes, [size_bytes], in the order of a frame."""
        end = source.end(heads)
        data = self.tensor(slot, len(batch.planes) * batch.num_tokens * end.token_bytes)
        packed, parts = packing(end, batch.source, batch.tokens)
        if not source.is_on_device:
            EndCopies(end, source.host_bytes, packed, data.numpy()).run(batch.planes, parts, to_plane=0)
            return data
        for copy in parts:
            target = packed.view(data.numpy(), range(len(batch.planes)), copy.target)
            np.copyto(target, source.read(end, batch.planes, copy.source))
        return data

    def scatter(self, slot: int, frame: Frame, pool: Pool, blocks: Sequence[int], heads: range) -> None:
        """Puts a received payload where it belongs; when this returns, it is there."""
        data = self._buffers[slot][: frame.size_bytes]
        pool.scatter(frame.planes, blocks, frame.first_token, data, heads)


class DeviceStaging:
    """For lanes between device tensors: no byte passes the host."""

    def __init__(self, device: torch.device, stream: torch.cuda.Stream | None) -> None:
        """`stream` is the lane's; None where the device has none."""
        self._device = device
        self._stream = stream
        self._buffers = [torch.empty(0, dtype=torch.uint8, device=device)] * NUM_SLOTS

    def tensor(self, slot: int, size_bytes: int) -> torch.Tensor:
        if self._buffers[slot].nbytes < size_bytes:
            size = max(size_bytes, SLICE_BYTES)
            self._buffers[slot] = torch.empty(size, dtype=torch.uint8, device=self._device)
        return self._buffers[slot][:size_bytes]

    def gather(self, slot: int, source: PlaneSource, heads: range, batch: Batch) -> torch.Tensor:
        """On the lane's stream; the batch's fence was waited for."""
        end, planes = source.end(heads), range(len(batch.planes))
        data = self.tensor(slot, len(planes) * batch.num_tokens * end.token_bytes)
        packed, parts = packing(end, batch.source, batch.tokens)
        elements = data.view(source.elements.dtype)
        with torch.cuda.stream(self._stream):
            for copy in parts:
                rows = strided(source.elements, end, batch.planes, copy.source)
                strided(elements, packed, planes, copy.target).copy_(rows)
        self._finish()  # the source may be written once this returned
        return data

    def scatter(self, slot: int, frame: Frame, pool: Pool, blocks: Sequence[int], heads: range) -> None:
        data = self._buffers[slot][: frame.size_bytes]
        with torch.cuda.stream(self._stream):
            pool.scatter_tensor(frame.planes, blocks, frame.first_token, data, heads)
        self._finish()

    def _finish(self) -> None:
        if self._stream is not None:
            self._stream.synchronize()


Staging = HostStaging | DeviceStaging


def staging_for(lane: Lane) -> Staging:
    return DeviceStaging(lane.device, lane.stream) if isinstance(lane, NcclLane) else HostStaging()
