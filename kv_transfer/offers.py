"""What a sender asks for, and why it may be refused."""

from __future__ import annotations

from dataclasses import dataclass

from kv_transfer.layout import PoolLayout
from kv_transfer.leases import Item, Key


class TransferUnavailable(RuntimeError):
    """No transport that the sender offers can be served."""


class NoSuchPool(ValueError):
    """This instance holds no payload of that kind."""


class TooLarge(ValueError):
    """The whole pool could not hold the payload."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenOffer:
    """What a sender asks for."""

    key: Key
    item_index: int
    num_tokens: int
    layout: PoolLayout
    receiver_epoch: int
    sender_instance_id: str
    sender_host_id: str
    sender_pid: int
    transports: tuple[str, ...]  # best first
    is_prefix: bool = False  # KV for the receiver's cache

    @property
    def item(self) -> Item:
        return self.key, self.layout.kind, self.item_index
