"""Contiguous buffers between blocks and the wire: two slices per pair, whatever is sent."""

from __future__ import annotations

import numpy as np
import torch

from kv_transfer.pool import Pool, byte_slots
from kv_transfer.runs import BlockTable
from kv_transfer.source import PlaneSource
from kv_transfer.transports.backlog import Batch
from kv_transfer.transports.collective.frames import Frame
from kv_transfer.transports.collective.groups import Lane, NcclLane

NUM_SLOTS = 2  # one is filled or emptied while the other is on the wire
SLICE_BYTES = 4 << 20  # sent for one transfer before the next has its turn


class HostStaging:
    """For lanes between host tensors. Copies by numpy: torch would start compute threads for them."""

    def __init__(self) -> None:
        self._buffers = [np.empty(0, np.uint8)] * NUM_SLOTS

    def tensor(self, slot: int, size_bytes: int) -> torch.Tensor:
        """The slot's first bytes, [size_bytes]; what it held is lost where it has to grow."""
        if self._buffers[slot].nbytes < size_bytes:
            self._buffers[slot] = np.empty(max(size_bytes, SLICE_BYTES), np.uint8)
        return torch.from_numpy(self._buffers[slot][:size_bytes])

    def gather(self, slot: int, source: PlaneSource, batch: Batch) -> torch.Tensor:
        """The batch's bytes, [size_bytes], in the order of a frame."""
        shape = (len(batch.planes), batch.num_tokens, source.layout.token_bytes)
        data = self.tensor(slot, shape[0] * shape[1] * shape[2])
        target = data.numpy().reshape(shape)
        for run in batch.source.runs(batch.first_token, batch.num_tokens):
            start = run.first_token - batch.first_token
            read = source.read(batch.planes, run.first_slot, run.num_tokens)
            np.copyto(target[:, start : start + run.num_tokens], read)  # without the GIL
        return data

    def scatter(self, slot: int, frame: Frame, pool: Pool, blocks: BlockTable) -> None:
        """Puts a received payload where it belongs; when this returns, it is there."""
        data = self._buffers[slot][: frame.size_bytes]
        if pool.device.type != "cpu":
            _scatter(torch.from_numpy(data).to(pool.device), frame, pool, blocks)
            return
        source = data.reshape(frame.num_planes, frame.num_tokens, pool.layout.token_bytes)
        target = byte_slots(pool.tensor, pool.layout)[frame.first_plane : frame.planes.stop]
        for run in blocks.runs(frame.first_token, frame.num_tokens):
            start = run.first_token - frame.first_token
            np.copyto(
                target[:, run.first_slot : run.first_slot + run.num_tokens],
                source[:, start : start + run.num_tokens],
            )


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

    def gather(self, slot: int, source: PlaneSource, batch: Batch) -> torch.Tensor:
        """On the lane's stream; the batch's fence was waited for."""
        slots = source.slots
        shape = (len(batch.planes), batch.num_tokens, slots.shape[-1])
        data = self.tensor(slot, shape[0] * shape[1] * source.layout.token_bytes)
        target = data.view(slots.dtype).view(shape)
        with torch.cuda.stream(self._stream):
            for run in batch.source.runs(batch.first_token, batch.num_tokens):
                start = run.first_token - batch.first_token
                rows = slots[
                    batch.planes.start : batch.planes.stop, run.first_slot : run.first_slot + run.num_tokens
                ]
                target[:, start : start + run.num_tokens] = rows
        self._finish()  # the source may be written once this returned
        return data

    def scatter(self, slot: int, frame: Frame, pool: Pool, blocks: BlockTable) -> None:
        with torch.cuda.stream(self._stream):
            _scatter(self._buffers[slot][: frame.size_bytes], frame, pool, blocks)
        self._finish()

    def _finish(self) -> None:
        if self._stream is not None:
            self._stream.synchronize()


Staging = HostStaging | DeviceStaging


def staging_for(lane: Lane) -> Staging:
    return DeviceStaging(lane.device, lane.stream) if isinstance(lane, NcclLane) else HostStaging()


def _scatter(data: torch.Tensor, frame: Frame, pool: Pool, blocks: BlockTable) -> None:
    source = data.view(pool.dtype).view(frame.num_planes, frame.num_tokens, -1)
    target = pool.slots()[frame.first_plane : frame.planes.stop]
    for run in blocks.runs(frame.first_token, frame.num_tokens):
        start = run.first_token - frame.first_token
        target[:, run.first_slot : run.first_slot + run.num_tokens] = source[
            :, start : start + run.num_tokens
        ]
