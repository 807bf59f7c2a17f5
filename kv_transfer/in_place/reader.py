"""The reading end: takes leases on peers' embeddings and hands views of them to the owner."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from kv_transfer.errors import AttachError, LayoutMismatch
from kv_transfer.host import TransferHost
from kv_transfer.in_place.mapping import ReadMapping
from kv_transfer.in_place.offer import EmbeddingOffer
from kv_transfer.layout import MemoryOrder, PayloadKind
from kv_transfer.leases import Key
from kv_transfer.segment import reap_left_by

if TYPE_CHECKING:
    import torch

    from kv_transfer.pool import Pool

logger = logging.getLogger(__name__)


@runtime_checkable
class ReadingHost(Protocol):
    """What a TransferHost implements, too, that reads in place. Called on the loop; must not block."""

    def on_embedding_in_place(
        self, key: Key, item_index: int, embedding: torch.Tensor, let_go: Callable[[], None]
    ) -> None:
        """One media item's embedding [num_tokens, width], to be read only, until the owner calls `let_go`,
        on this loop and once.

        Raises UnknownRequest if the request is gone: then nothing is to be let go of.
        """


class InPlaceReader:
    """One per receiver, used on its loop. A mapping is kept while its producer lives, or it is read from."""

    def __init__(
        self, pools: Mapping[PayloadKind, Pool], host: TransferHost, *, epoch: int, host_id: str
    ) -> None:
        self._pool = pools.get(PayloadKind.EMBEDDING)
        self._host = host
        self._epoch = epoch
        self._host_id = host_id
        self._mappings: dict[str, ReadMapping] = {}  # by instance id
        self._outdated: set[ReadMapping] = set()  # of earlier lives, and read from still

    @property
    def num_read(self) -> int:
        """Blocks of peers."""
        return sum(mapping.locks.num_read for mapping in self._all)

    async def take(self, offer: EmbeddingOffer) -> bool:
        """Waits until the request is known here; False if it cannot be read in place.

        Raises LayoutMismatch, UnknownRequest.
        """
        if offer.receiver_epoch != self._epoch:
            raise LayoutMismatch(f"receiver_epoch: {offer.receiver_epoch} is not this life of the instance")
        host = self._host
        if not isinstance(host, ReadingHost) or self._is_foreign(offer):
            return False
        await host.expect(offer.key, PayloadKind.EMBEDDING, offer.item_index, offer.num_tokens)
        try:
            return self._read(offer, host)
        except (AttachError, OSError) as error:
            logger.warning("%s is not read in place: %s", offer.sender_instance_id, error)
            return False

    def sweep(self) -> None:
        """Drops mappings that are not read from and whose producers are dead; to be called now and then."""
        for mapping in self._all:
            self._drop_if_over(mapping)

    def close(self) -> None:
        """Lets go of everything; views stay readable."""
        for mapping in self._all:
            mapping.close()
        self._mappings.clear()
        self._outdated.clear()

    @property
    def _all(self) -> list[ReadMapping]:
        return [*self._mappings.values(), *self._outdated]

    def _is_foreign(self, offer: EmbeddingOffer) -> bool:
        pool, plain = self._pool, MemoryOrder.PLANE_BLOCK_TOKEN_HEAD
        if pool is None or pool.device.type != "cpu" or offer.host_id != self._host_id:
            return True
        return offer.layout.order is not plain or bool(pool.layout.difference(offer.layout))

    def _read(self, offer: EmbeddingOffer, host: ReadingHost) -> bool:
        """Raises AttachError, OSError."""
        mapping = self._mapping(offer)
        mapping.locks.lock_blocks(offer.blocks)
        try:
            is_good = mapping.locks.is_offered(offer.offer_id)
            if is_good:
                view = mapping.tokens(offer.blocks, offer.num_tokens)
                host.on_embedding_in_place(
                    offer.key, offer.item_index, view, lambda: self._let_go(mapping, offer.blocks)
                )
        except BaseException:
            mapping.locks.unlock_blocks(offer.blocks)
            raise
        if not is_good:
            mapping.locks.unlock_blocks(offer.blocks)
        return is_good

    def _mapping(self, offer: EmbeddingOffer) -> ReadMapping:
        mapping = self._mappings.get(offer.sender_instance_id)
        if mapping is None or not mapping.fits(offer):
            new = ReadMapping(offer)
            if mapping is not None:
                self._outdated.add(mapping)
                self._drop_if_over(mapping)
            mapping = self._mappings[offer.sender_instance_id] = new
        return mapping

    def _let_go(self, mapping: ReadMapping, blocks: range) -> None:
        if mapping in self._all:  # else this was closed
            mapping.locks.unlock_blocks(blocks)
            self._drop_if_over(mapping)

    def _drop_if_over(self, mapping: ReadMapping) -> None:
        if mapping.locks.num_read:
            return
        if mapping.record.owner.is_alive:
            is_over = mapping in self._outdated
        else:
            reap_left_by(mapping.path)  # by the last reader; not yet while the owner's files are being closed
            is_over = not os.path.exists(mapping.path)
        if is_over:
            self._outdated.discard(mapping)
            self._mappings = {name: kept for name, kept in self._mappings.items() if kept is not mapping}
            mapping.close()
