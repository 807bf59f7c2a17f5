"""What a producer says of an embedding in its segment, and its form on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from elasticmm.v1 import transfer_pb2
from kv_transfer.layout import PoolLayout
from kv_transfer.leases import Key
from kv_transfer.wire import layout_from, layout_to


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingOffer:
    """Consecutive blocks of the producer's pool that hold one media item's embedding."""

    key: Key
    item_index: int
    num_tokens: int
    layout: PoolLayout  # of the producer's pool
    num_blocks: int  # of the whole pool
    blocks: range
    segment: str  # path
    host_id: str
    sender_instance_id: str
    sender_epoch: int
    receiver_epoch: int
    offer_id: int  # locked as long as the offer is good


def offer_to(offer: EmbeddingOffer) -> transfer_pb2.OfferEmbeddingRequest:
    return transfer_pb2.OfferEmbeddingRequest(
        request_id=offer.key[0],
        attempt=offer.key[1],
        item_index=offer.item_index,
        num_tokens=offer.num_tokens,
        layout=layout_to(offer.layout),
        num_blocks=offer.num_blocks,
        block_ids=offer.blocks,
        segment=offer.segment,
        host_id=offer.host_id,
        sender_instance_id=offer.sender_instance_id,
        sender_epoch=offer.sender_epoch,
        receiver_epoch=offer.receiver_epoch,
        offer_id=offer.offer_id,
    )


def offer_from(message: transfer_pb2.OfferEmbeddingRequest) -> EmbeddingOffer:
    """Raises ValueError naming the field."""
    if not message.request_id:
        raise ValueError("request_id: is missing")
    layout = layout_from(message.layout)
    blocks = consecutive(message.block_ids)
    if blocks is None or blocks.stop > message.num_blocks:
        raise ValueError(f"block_ids: are not consecutive ones of {message.num_blocks}")
    if not 0 < message.num_tokens <= len(blocks) * layout.block_tokens:
        raise ValueError(f"num_tokens: {message.num_tokens} do not lie in {len(blocks)} blocks")
    return EmbeddingOffer(
        key=(message.request_id, message.attempt),
        item_index=message.item_index,
        num_tokens=message.num_tokens,
        layout=layout,
        num_blocks=message.num_blocks,
        blocks=blocks,
        segment=message.segment,
        host_id=message.host_id,
        sender_instance_id=message.sender_instance_id,
        sender_epoch=message.sender_epoch,
        receiver_epoch=message.receiver_epoch,
        offer_id=message.offer_id,
    )


def consecutive(block_ids: Sequence[int]) -> range | None:
    """The blocks as a range; None if they are no such, or none at all."""
    if not block_ids:
        return None
    blocks = range(block_ids[0], block_ids[0] + len(block_ids))
    return blocks if list(blocks) == list(block_ids) else None
