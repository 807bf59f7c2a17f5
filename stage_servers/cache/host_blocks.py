"""The RAM tier under a KV pool: blocks of the same shape, to which others are copied and back."""

from __future__ import annotations

import torch


class HostBlocks:
    """Used on the engine thread. Pinned where the pool is on a GPU, so that copies run beside the host.

    `kv` is the pool, [planes, blocks, block_tokens, elements].
    """

    def __init__(self, kv: torch.Tensor, num_blocks: int) -> None:
        planes, _, *block = kv.shape
        self._kv = kv
        self._memory = torch.zeros(
            (num_blocks, planes, *block), dtype=kv.dtype, pin_memory=num_blocks > 0 and kv.is_cuda
        )
        self._free = list(reversed(range(num_blocks)))

    @property
    def num_blocks(self) -> int:
        return len(self._memory)

    @property
    def num_free(self) -> int:
        return len(self._free)

    def put(self, device_block: int) -> int:
        """Copies a block of the pool; returns where it lies here. There must be room."""
        number = self._free.pop()
        self._memory[number].copy_(self._kv[:, device_block], non_blocking=True)
        return number

    def read(self, number: int, device_block: int, num_tokens: int | None = None) -> None:
        """Copies the first tokens of a block, None: all, into a block of the pool."""
        # One stream: a copy out of or into the same memory that is asked for later runs later.
        self._kv[:, device_block, :num_tokens].copy_(self._memory[number][:, :num_tokens], non_blocking=True)

    def give_back(self, number: int) -> None:
        self._free.append(number)
