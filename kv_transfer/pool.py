"""A pool of blocks: the memory, who holds which block, and what it looks like."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

from kv_transfer.blocks import BlockAllocator, blocks_for
from kv_transfer.descriptors import Bytes, End, copies
from kv_transfer.layout import MemoryOrder, PayloadKind, PoolLayout
from kv_transfer.native.copies import EndCopies
from kv_transfer.runs import BlockTable, Run
from kv_transfer.segment import SegmentOwner, SharedSegment

EMBEDDING_BLOCK_TOKENS = 16


def dtype_name(dtype: torch.dtype) -> str:
    """The name that layouts carry: "bfloat16"."""
    return str(dtype).removeprefix("torch.")


def kv_layout(
    model_fingerprint: str,
    dtype: torch.dtype,
    *,
    num_layers: int,
    num_heads: int,
    head_dim: int,
    block_tokens: int,
    heads: range | None = None,
    order: MemoryOrder = MemoryOrder.PLANE_BLOCK_TOKEN_HEAD,
) -> PoolLayout:
    """Layout of a KV pool of a model with `num_heads` KV heads, of which it holds `heads` (None: all)."""
    held = range(num_heads) if heads is None else heads
    return PoolLayout(
        kind=PayloadKind.KV,
        model_fingerprint=model_fingerprint,
        dtype=dtype_name(dtype),
        num_planes=2 * num_layers,
        block_tokens=block_tokens,
        token_bytes=len(held) * head_dim * dtype.itemsize,
        first_head=held.start,
        num_heads=len(held),
        total_heads=num_heads,
        order=order,
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
    """`memory` is all elements [size], in the layout's order, zero at first.

    With an `owner` a CPU pool lies in a shared segment, which peers on the host
    write into. `blocks` says who holds what; reading and writing bytes is free
    of checks beyond that, and of locks.

    Raises SegmentTooLarge, ValueError for a dtype that is unknown or does not fit the heads.
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
        if layout.head_bytes % self.dtype.itemsize:
            raise ValueError(f"token_bytes: heads of {layout.head_bytes} bytes are not whole {layout.dtype}s")
        self.blocks = BlockAllocator(num_blocks)
        self._ends: dict[range, End] = {}
        size = layout.pool_bytes(num_blocks) // self.dtype.itemsize
        self.segment: SharedSegment | None = None
        if owner is not None and self.device.type == "cpu":
            labels = dataclasses.asdict(layout) | {"num_blocks": num_blocks}
            self.segment = SharedSegment.create(
                owner, layout.kind.name.lower(), layout.pool_bytes(num_blocks), labels
            )
            self.memory = self.segment.tensor(self.dtype, (size,))
        else:
            self.memory = torch.zeros(size, dtype=self.dtype, device=self.device)

    @property
    def elements_per_token(self) -> int:
        return self.layout.token_bytes // self.dtype.itemsize

    @property
    def num_tokens(self) -> int:
        """Tokens that the whole pool holds."""
        return self.num_blocks * self.layout.block_tokens

    @property
    def tensor(self) -> torch.Tensor:
        """What the engine works on: [num_planes, num_blocks, block_tokens, elements_per_token], a view.

        Raises ValueError for a pool in another order than the engine's.
        """
        layout = self.layout
        if layout.order is not MemoryOrder.PLANE_BLOCK_TOKEN_HEAD:
            raise ValueError(f"order: the engine does not work on {layout.order.name}")
        return self.memory.view(layout.num_planes, self.num_blocks, layout.block_tokens, -1)

    def canonical(self) -> torch.Tensor:
        """[num_planes, num_blocks, block_tokens, num_heads, head_elements], a view in every order."""
        layout, size = self.layout, self.dtype.itemsize
        shape = layout.num_planes, self.num_blocks, layout.block_tokens, layout.num_heads
        steps = [step // size for step in layout.strides(self.num_blocks)]
        return self.memory.as_strided((*shape, layout.head_bytes // size), (*steps, 1))

    def blocks_for(self, num_tokens: int) -> int:
        return blocks_for(num_tokens, self.layout.block_tokens)

    def end(self, heads: range) -> End:
        """The memory, seen as heads that it holds."""
        if heads not in self._ends:
            self._ends[heads] = End.of(self.layout, self.num_blocks, heads)
        return self._ends[heads]

    def read_tokens(self, blocks: Sequence[int], num_tokens: int, *, plane: int = 0) -> torch.Tensor:
        """[num_tokens, elements_per_token] of one plane: a view of consecutive blocks where the order
        allows one, else a copy.
        """
        rows = self.canonical()[plane]
        if self.layout.order is not MemoryOrder.PLANE_BLOCK_TOKEN_HEAD:
            return rows[list(blocks)].reshape(-1, self.elements_per_token)[:num_tokens]
        slots = rows.view(self.num_tokens, self.elements_per_token)
        runs = BlockTable(blocks, self.layout.block_tokens).runs(0, num_tokens)
        parts = [slots[run.first_slot : run.first_slot + run.num_tokens] for run in runs]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def write_tokens(self, plane: int, blocks: Sequence[int], first_token: int, data: torch.Tensor) -> None:
        """Puts `data` [n, elements_per_token] at the tokens first_token.. of these blocks."""
        self._put(plane, blocks, first_token, data, self.layout.heads)

    def fill(self, blocks: Sequence[int], data: torch.Tensor, *, plane: int = 0) -> None:
        """As write_tokens from token 0 on; one copy where the blocks are consecutive."""
        view = self.read_tokens(blocks, len(data), plane=plane)
        if view.untyped_storage().data_ptr() == self.memory.untyped_storage().data_ptr():
            view.copy_(data)
        else:
            self.write_tokens(plane, blocks, 0, data.to(self.device))

    def write_bytes(
        self, planes: range, blocks: Sequence[int], first_token: int, data: bytes, heads: range | None = None
    ) -> None:
        """As write_tokens, from whole tokens' bytes, plane by plane, head by head: of all heads or some."""
        heads = self.layout.heads if heads is None else heads
        self.scatter(planes, blocks, first_token, np.frombuffer(data, np.uint8), heads)

    def scatter(
        self, planes: range, blocks: Sequence[int], first_token: int, data: Bytes, heads: range
    ) -> None:
        """Puts `data` [bytes], plane by plane, token by token, head by head, where it belongs."""
        end = self.end(heads)
        if self.device.type != "cpu":
            self.scatter_tensor(planes, blocks, first_token, torch.from_numpy(data.copy()), heads)
            return
        count = len(data) // len(planes) // end.token_bytes
        packed = End.packed(count, end.num_heads, end.head_bytes)
        memory = self.memory.view(torch.uint8).numpy()
        runs = BlockTable(blocks, self.layout.block_tokens).runs(first_token, count)
        moves = copies(packed, iter((Run(first_token, 0, count),)), end, runs)
        EndCopies(packed, data, end, memory).run(range(len(planes)), moves, to_plane=planes.start)

    def scatter_tensor(
        self, planes: range, blocks: Sequence[int], first_token: int, data: torch.Tensor, heads: range
    ) -> None:
        """As scatter, from a uint8 tensor on any device. All is written when it returns."""
        rows = data.view(self.dtype).view(len(planes), -1).to(self.device)
        for plane, row in zip(planes, rows, strict=True):
            self._put(plane, blocks, first_token, row, heads)
        if self.device.type == "cuda":
            # The lease may end next, and its blocks go to others that write past this device's queue.
            torch.cuda.current_stream(self.device).synchronize()

    def close(self) -> None:
        """Takes the segment's name away. Views stay usable; the memory goes with the last of them."""
        if self.segment is not None:
            del self.memory
            self.segment.close()

    def _put(
        self, plane: int, blocks: Sequence[int], first_token: int, data: torch.Tensor, heads: range
    ) -> None:
        first = heads.start - self.layout.first_head
        rows = self.canonical()[plane, :, :, first : first + len(heads)]
        tokens = data.reshape(-1, *rows.shape[2:])
        numbers = torch.arange(first_token, first_token + len(tokens), device=self.device)
        block_ids = torch.tensor(list(blocks), device=self.device)[numbers // self.layout.block_tokens]
        rows[block_ids, numbers % self.layout.block_tokens] = tokens


def _dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"dtype: torch has no {name!r}")
    return dtype
