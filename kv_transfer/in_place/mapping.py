"""A producer's segment in a reader's address space, which cannot be written through it."""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from kv_transfer.errors import AttachError
from kv_transfer.in_place.offer import EmbeddingOffer
from kv_transfer.in_place.record_locks import RecordLocks
from kv_transfer.segment import HEADER_BYTES, open_segment, read_record

if TYPE_CHECKING:
    import torch


class ReadMapping:
    """Made of the first offer from it; views outlive it. Used on one loop."""

    def __init__(self, offer: EmbeddingOffer) -> None:
        """Raises AttachError: gone, another life's, or laid out otherwise than the offer says."""
        self._layout = offer.layout
        fd = open_segment(offer.segment, os.O_RDONLY)
        self._close_fd = weakref.finalize(self, os.close, fd)
        try:
            self.record = read_record(fd)
            size_bytes = HEADER_BYTES + self.record.payload_bytes
            mapping = mmap.mmap(fd, size_bytes, access=mmap.ACCESS_READ)
            self._check(offer)
            self.locks = RecordLocks(fd, offer.layout.pool_bytes(1), offer.num_blocks)
        except (OSError, ValueError) as error:
            self._close_fd()
            raise AttachError(f"{offer.segment}: {error}") from error
        self.path = offer.segment
        self._bytes = np.frombuffer(mapping, np.uint8)

    def fits(self, offer: EmbeddingOffer) -> bool:
        """Whether it is the one that the offer speaks of."""
        return (self.path, self.record.epoch, self._layout) == (
            offer.segment,
            offer.sender_epoch,
            offer.layout,
        )

    def tokens(self, blocks: range, num_tokens: int) -> torch.Tensor:
        """[num_tokens, width], a view that must not be written to: that would end the process."""
        import torch

        layout = self._layout
        start = HEADER_BYTES + blocks.start * layout.pool_bytes(1)
        memory: Any = (ctypes.c_uint8 * (num_tokens * layout.token_bytes)).from_address(
            self._bytes.ctypes.data + start
        )
        memory.mapped = self._bytes  # torch keeps what it is made of, and that keeps the mapping
        flat: torch.Tensor = torch.frombuffer(memory, dtype=getattr(torch, layout.dtype))
        return flat.view(num_tokens, -1)

    def close(self) -> None:
        """All locks go; the memory is unmapped with the last view."""
        self.locks.unlock_all()  # the mapping has a duplicate of the descriptor
        self._close_fd()

    def _check(self, offer: EmbeddingOffer) -> None:
        if self.record.epoch != offer.sender_epoch:
            raise ValueError(f"belongs to another life of {offer.sender_instance_id}")
        if self.record.labels != asdict(offer.layout) | {"num_blocks": offer.num_blocks}:
            raise ValueError("is laid out otherwise than the offer says")
