"""One connected pair, as both ends hold it: a socket for frames, a lane for payloads."""

from __future__ import annotations

import contextlib
import select
import socket
from typing import Any

import torch

from kv_transfer.errors import TransferError
from kv_transfer.transports.collective.frames import (
    FRAME_BYTES,
    MAX_REASON_BYTES,
    Frame,
    Verb,
    pack,
    pack_greeting,
    read_greeting,
    unpack,
)
from kv_transfer.transports.collective.groups import (
    NCCL,
    RECEIVER_RANK,
    SENDER_RANK,
    GlooLane,
    Lane,
    NcclLane,
    Rendezvous,
)

_READY = b"!"  # the sender has reached the store
_KEEPALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))  # a host that vanished


class Link:
    """Used in its pair's thread, but for `hang_up`; raises TransferError where it broke."""

    def __init__(self, control: socket.socket, lane: Lane) -> None:
        self.control = control
        self.lane = lane
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)

    @property
    def has_frame(self) -> bool:
        """Whether `read` would not wait; also when the peer is gone."""
        return bool(self._poll.poll(0))

    def tell(self, frame: Frame, text: bytes = b"") -> None:
        try:
            self.control.sendall(pack(frame) + text)
        except OSError as error:
            raise _gone(error) from None

    def read(self) -> Frame:
        """Waits for the next frame, as long as it takes."""
        try:
            return unpack(read_exactly(self.control, FRAME_BYTES))
        except ValueError as error:
            raise TransferError("PROTOCOL", f"the peer sent no frame: {error}") from None

    def read_reason(self, frame: Frame) -> str:
        """The text that follows a REFUSED."""
        if frame.verb is not Verb.REFUSED or not 0 <= frame.size_bytes <= MAX_REASON_BYTES:
            raise TransferError(
                "PROTOCOL", f"the peer answered {frame.verb.name} of {frame.size_bytes} bytes"
            )
        return read_exactly(self.control, frame.size_bytes).decode(errors="replace")

    def hang_up(self) -> None:
        """Any thread: whoever reads finds the end, here and at the peer."""
        hang_up(self.control)

    def close(self) -> None:
        self.hang_up()
        self.control.close()
        self.lane.close()


def dial(address: tuple[str, int], hello: dict[str, Any], device: torch.device, timeout_s: float) -> Link:
    """The sender's end. Raises OSError, RuntimeError, ValueError: the pair cannot be made."""
    control = socket.create_connection(address, timeout=timeout_s)
    try:
        control.sendall(pack_greeting(hello))
        port = int(read_greeting(lambda size: read_exactly(control, size))["port"])
        rendezvous = Rendezvous(control.getpeername()[0], timeout_s, port)
        control.sendall(_READY)
        return _join(control, rendezvous, SENDER_RANK, hello["backend"], device, timeout_s)
    except BaseException:
        control.close()
        raise


def answer(control: socket.socket, backend: str, device: torch.device, timeout_s: float) -> Link:
    """The receiver's end, after it read the hello; raises as `dial`. `control` stays the caller's."""
    rendezvous = Rendezvous(control.getsockname()[0], timeout_s)
    control.sendall(pack_greeting({"port": rendezvous.port}))
    read_exactly(control, len(_READY))  # a store that failed before would be tried in vain until the timeout
    return _join(control, rendezvous, RECEIVER_RANK, backend, device, timeout_s)


def read_exactly(control: socket.socket, size_bytes: int) -> bytes:
    """Raises TransferError where the peer is gone."""
    data = bytearray()
    while len(data) < size_bytes:
        try:
            part = control.recv(size_bytes - len(data))
        except OSError as error:
            raise _gone(error) from None
        if not part:
            raise _gone("it closed the connection")
        data += part
    return bytes(data)


def hang_up(control: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the peer was first
        control.shutdown(socket.SHUT_RDWR)


def _join(  # noqa: PLR0917 - both ends say all of it
    control: socket.socket,
    rendezvous: Rendezvous,
    rank: int,
    backend: str,
    device: torch.device,
    timeout_s: float,
) -> Link:
    """The interface by which the socket reaches the peer is that of the payloads, too."""
    lane: Lane
    if backend == NCCL:
        lane = NcclLane(rendezvous, rank, device, timeout_s)
    else:
        lane = GlooLane(rendezvous, rank, control.getsockname()[0], timeout_s)
    control.settimeout(None)
    control.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    control.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        if hasattr(socket, name):
            control.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return Link(control, lane)


def _gone(reason: object) -> TransferError:
    return TransferError("PEER_LOST", f"the pair broke: {reason}")
