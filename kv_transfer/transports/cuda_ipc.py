"""GPUs of one host: copies from device to device, straight into the receiver's leased blocks."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import threading
from dataclasses import dataclass

import torch

from kv_transfer.descriptors import End
from kv_transfer.errors import AttachError
from kv_transfer.layout import PayloadKind
from kv_transfer.leases import Lease
from kv_transfer.offers import OpenOffer
from kv_transfer.pool import Pool
from kv_transfer.transports.acceptor import TransportInfo
from kv_transfer.transports.base import PeerAddress, Transfer, Writer
from kv_transfer.transports.cuda_driver import CopyStream, CudaDriver, CudaError, Exported, Mapped
from kv_transfer.transports.cuda_writer import CudaWriter
from kv_transfer.transports.poller import Poller

logger = logging.getLogger(__name__)


class CudaIpcTransport:
    """Peers on this host whose pools lie on a GPU that this process sees and can write to."""

    name = "cuda_ipc"

    def __init__(self, host_id: str, driver: CudaDriver | None = None) -> None:
        self._host_id = host_id
        self._driver = driver or CudaDriver()
        self._mappings = Mappings(self._driver)
        self._poller = Poller("kv-cuda")
        self._streams: dict[torch.device, CopyStream] = {}

    def can_reach(self, peer: PeerAddress) -> bool:
        return peer.host_id == self._host_id

    async def open_writer(self, transfer: Transfer) -> Writer:
        grant = transfer.grant
        exported = Exported(_decoded(grant.text("handle")), grant.number("offset"), grant.text("device"))
        num_blocks = grant.number("num_blocks")
        size_bytes = grant.layout.pool_bytes(num_blocks)
        try:
            mapping = self._mappings.use(transfer.peer, exported)
        except CudaError as error:
            raise AttachError(str(error)) from error
        try:
            source = transfer.source.elements
            self._driver.check_access(source.device, mapping.memory.device)
            target = self._driver.memory(mapping.memory, exported.offset_bytes, size_bytes)
            stream = self._stream(source.device if source.is_cuda else target.device)
        except CudaError as error:
            self._mappings.give_back(mapping)
            raise AttachError(str(error)) from error
        self._poller.start()
        return CudaWriter(
            self._poller,
            transfer,
            target=target,
            there=End.of(grant.layout, num_blocks, transfer.heads),
            stream=stream,
            close=lambda: self._mappings.give_back(mapping),
        )

    def forget(self, instance_id: str) -> None:
        self._mappings.retire(instance_id)

    async def close(self) -> None:
        await asyncio.to_thread(self._poller.close)
        self._mappings.retire_all()

    def _stream(self, device: torch.device) -> CopyStream:
        """One per source device: transfers follow each other on it in the order of their turns."""
        if device not in self._streams:
            self._streams[device] = self._driver.stream(device)
        return self._streams[device]


class CudaIpcAcceptor:
    """Takes each pool's handle once and hands it to senders of this host."""

    name = "cuda_ipc"
    is_direct = True

    def __init__(self, host_id: str, driver: CudaDriver | None = None) -> None:
        self._host_id = host_id
        self._driver = driver or CudaDriver()
        self._exported: dict[PayloadKind, Exported | CudaError] = {}

    def refusal(self, offer: OpenOffer, pool: Pool) -> str:
        if offer.sender_host_id != self._host_id:
            return "the sender is on another host"
        exported = self._export(pool)
        return str(exported) if isinstance(exported, CudaError) else ""

    async def grant_info(self, lease: Lease, pool: Pool) -> TransportInfo:
        del lease
        exported = self._export(pool)
        if isinstance(exported, CudaError):
            raise exported
        return {
            "handle": base64.b64encode(exported.handle).decode(),
            "offset": exported.offset_bytes,
            "device": exported.device_uuid,
            "num_blocks": pool.num_blocks,
        }

    def lease_ended(self, lease: Lease) -> None:
        """Nothing is kept per lease."""

    async def close(self) -> None:
        """A handle needs no closing by its owner; the pools are not ours."""

    def _export(self, pool: Pool) -> Exported | CudaError:
        kind = pool.layout.kind
        if kind not in self._exported:
            try:
                self._exported[kind] = self._driver.export(pool.memory)
            except CudaError as error:
                self._exported[kind] = error
        return self._exported[kind]


@dataclass(slots=True)
class Mapping:
    """An allocation of one life of a peer."""

    peer: PeerAddress
    memory: Mapped
    num_users: int = 0
    is_retired: bool = False  # closed with its last user


class Mappings:
    """Opens each handle once per peer and life; any thread.

    By handle, not by pool: pools may share one allocation, and CUDA opens it once.
    """

    def __init__(self, driver: CudaDriver) -> None:
        self._driver = driver
        self._open: dict[tuple[str, bytes], Mapping] = {}
        self._lock = threading.Lock()

    def use(self, peer: PeerAddress, exported: Exported) -> Mapping:
        """Raises CudaError. Ends with `give_back`."""
        key = peer.instance_id, exported.handle
        with self._lock:
            for old in [key for key, each in self._open.items() if _is_earlier_life(each.peer, peer)]:
                self._retire(old)
            mapping = self._open.get(key)
            if mapping is None:
                mapping = self._open[key] = Mapping(peer, self._driver.open(exported))
            mapping.num_users += 1
            return mapping

    def give_back(self, mapping: Mapping) -> None:
        """No copy to it is under way for this user."""
        with self._lock:
            mapping.num_users -= 1
            self._close_unused(mapping)

    def retire(self, instance_id: str) -> None:
        with self._lock:
            for key in [key for key in self._open if key[0] == instance_id]:
                self._retire(key)

    def retire_all(self) -> None:
        for instance_id in {key[0] for key in self._open}:
            self.retire(instance_id)

    def _retire(self, key: tuple[str, bytes]) -> None:
        mapping = self._open.pop(key)
        mapping.is_retired = True
        self._close_unused(mapping)

    def _close_unused(self, mapping: Mapping) -> None:
        if not mapping.is_retired or mapping.num_users:
            return
        try:
            self._driver.close(mapping.memory)
        except CudaError:
            logger.exception("closing memory of %s failed", mapping.peer.instance_id)


def _is_earlier_life(one: PeerAddress, other: PeerAddress) -> bool:
    return one.instance_id == other.instance_id and one.epoch != other.epoch


def _decoded(handle: str) -> bytes:
    try:
        return base64.b64decode(handle, validate=True)
    except binascii.Error as error:
        raise AttachError(f"the receiver granted cuda_ipc with no handle: {error}") from error
