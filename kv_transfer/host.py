"""What a receiver asks of whoever owns the pools."""

from __future__ import annotations

from typing import Protocol

from kv_transfer.layout import PayloadKind
from kv_transfer.leases import Key


class TransferHost(Protocol):
    """The owner of the pools. Called on the transfer service's loop; none of it may block."""

    async def expect(self, key: Key, kind: PayloadKind, item_index: int | None, num_tokens: int) -> None:
        """Waits until the request is known here; cancelled at the caller's deadline.

        `item_index` is None for KV. Raises UnknownRequest if the request will not be known.
        """

    def on_kv(self, key: Key, block_ids: list[int], num_tokens: int, outputs: tuple[int, ...]) -> None:
        """All KV of the first `num_tokens` tokens is in these blocks, which are the owner's from here on.

        Raises UnknownRequest if the request is gone: then the blocks stay the receiver's.
        """

    def on_embedding(self, key: Key, item_index: int, block_ids: list[int], num_tokens: int) -> None:
        """As on_kv, for one media item."""
