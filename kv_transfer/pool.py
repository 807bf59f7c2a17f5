"""A pool of blocks: the memory, who holds which block, and what it looks like."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from kv_transfer.blocks import BlockAllocator, blocks_for
from kv_transfer.layout import PayloadKind, PoolLayout
from kv_transfer.runs import BlockTable, Run
from kv_transfer.segment import SegmentOwner, SharedSegment

EMBEDDING_BLOCK_TOKENS = 16


def dtype_name(dtype: torch.dtype) -> str:
    """The name that layouts carry: "bfloat16"."""
    return str(dtype).removeprefix("torch.")


def kv_layout(
    model_fingerprint: str, dtype: torch.dtype, *, num_layers: int, token_elements: int, block_tokens: int
) -> PoolLayout:
    """Layout of a KV pool; `token_elements` = KV heads times head size."""
    return PoolLayout(
        kind=PayloadKind.KV,
        model_fingerprint=model_fingerprint,
        dtype=dtype_name(dtype),
        num_planes=2 * num_layers,
        block_tokens=block_tokens,
        token_bytes=token_elements * dtype.itemsize,
    )


def embedding_layout(model_fingerprint: str, dtype: torch.dtype, *, width: int) -> PoolLayout:
    """Layout of an embedding pool; `width` elements per token."""
    return PoolLayout(
        kind=PayloadKind.EMBEDDING,
        model_fingerprint=model_fingerprint,
        dtype=dtype_name(dtype),
        num_planes=1,
        block_tokens=EMBEDDING_BLOCK_TOKENS,
        token_bytes=width * dtype.itemsize,
    )


class Pool:
    """`tensor` is [num_planes, num_blocks, block_tokens, elements_per_token], zero at first.

    With an `owner` a CPU pool lies in a shared segment, which peers on the host
    write into. `blocks` says who holds what; reading and writing bytes is free
    of checks beyond that, and of locks.

    Raises SegmentTooLarge, ValueError for an unknown dtype.
    """

    def __init__(
        self,
        layout: PoolLayout,
        num_blocks: int,
        *,
        device: torch.device | str = "cpu",
        owner: SegmentOwner | None = None,
    ) -> None:
        self.layout = layout
        self.num_blocks = num_blocks
        self.device = torch.device(device)
        self.dtype = _dtype(layout.dtype)
        self.blocks = BlockAllocator(num_blocks)
        shape = (layout.num_planes, num_blocks, layout.block_tokens, self.elements_per_token)
        self.segment: SharedSegment | None = None
        if owner is not None and self.device.type == "cpu":
            labels = dataclasses.asdict(layout) | {"num_blocks": num_blocks}
            self.segment = SharedSegment.create(
                owner, layout.kind.name.lower(), layout.pool_bytes(num_blocks), labels
            )
            self.tensor = self.segment.tensor(self.dtype, shape)
        else:
            self.tensor = torch.zeros(shape, dtype=self.dtype, device=self.device)

    @property
    def elements_per_token(self) -> int:
        return self.layout.token_bytes // self.dtype.itemsize

    @property
    def num_tokens(self) -> int:
        """Tokens that the whole pool holds."""
        return self.num_blocks * self.layout.block_tokens

    def blocks_for(self, num_tokens: int) -> int:
        return blocks_for(num_tokens, self.layout.block_tokens)

    def token_runs(self, blocks: Sequence[int], first_token: int, num_tokens: int) -> list[Run]:
        return list(BlockTable(blocks, self.layout.block_tokens).runs(first_token, num_tokens))

    def slots(self) -> torch.Tensor:
        """The pool by slot, [num_planes, num_tokens, elements_per_token], a view."""
        return self.tensor.view(self.layout.num_planes, self.num_tokens, self.elements_per_token)

    def read_tokens(self, blocks: Sequence[int], num_tokens: int, *, plane: int = 0) -> torch.Tensor:
        """[num_tokens, elements_per_token] of one plane: a view of consecutive blocks, else a copy."""
        slots = self.slots()[plane]
        runs = self.token_runs(blocks, 0, num_tokens)
        parts = [slots[run.first_slot : run.first_slot + run.num_tokens] for run in runs]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def write_tokens(self, plane: int, blocks: Sequence[int], first_token: int, data: torch.Tensor) -> None:
        """Puts `data` [n, elements_per_token] at the tokens first_token.. of these blocks."""
        slots = self.slots()[plane]
        for run in self.token_runs(blocks, first_token, len(data)):
            start = run.first_token - first_token
            slots[run.first_slot : run.first_slot + run.num_tokens] = data[start : start + run.num_tokens]

    def write_bytes(self, plane: int, blocks: Sequence[int], first_token: int, data: bytes) -> None:
        """As write_tokens, from a whole number of tokens' bytes."""
        array = np.frombuffer(data, np.uint8).reshape(-1, self.layout.token_bytes)
        if self.device.type == "cpu":
            target = byte_slots(self.tensor, self.layout)[plane]
            for run in self.token_runs(blocks, first_token, len(array)):
                start = run.first_token - first_token
                target[run.first_slot : run.first_slot + run.num_tokens] = array[
                    start : start + run.num_tokens
                ]
        else:
            host = torch.from_numpy(array.copy()).view(self.dtype)
            self.write_tokens(plane, blocks, first_token, host.to(self.device))

    def close(self) -> None:
        """Takes the segment's name away. Views stay usable; the memory goes with the last of them."""
        if self.segment is not None:
            del self.tensor
            self.segment.close()


def byte_slots(tensor: torch.Tensor, layout: PoolLayout) -> npt.NDArray[np.uint8]:
    """A pool's tensor on the CPU as bytes [num_planes, num_slots, token_bytes], without a copy."""
    array: npt.NDArray[np.uint8] = tensor.view(torch.uint8).numpy()
    return array.reshape(layout.num_planes, -1, layout.token_bytes)


def _dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"dtype: torch has no {name!r}")
    return dtype
