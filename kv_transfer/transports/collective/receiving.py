"""The receiving end of one pair: a thread that takes payloads in."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kv_transfer.errors import TransferError
from kv_transfer.transports.collective.frames import MAX_REASON_BYTES, Frame, Verb
from kv_transfer.transports.collective.groups import NUM_TAGS
from kv_transfer.transports.collective.link import Link, hang_up
from kv_transfer.transports.collective.staging import NUM_SLOTS, Staging, staging_for
from kv_transfer.transports.collective.targets import LeaseRefused, Targets

logger = logging.getLogger(__name__)

MAX_PAYLOAD_BYTES = 64 << 20  # a slice, or one token of one plane if that is more


@dataclass(frozen=True, slots=True)
class Arrived:
    """A payload that lies in a staging buffer."""

    frame: Frame
    slot: int


class ReceivingPair:
    """Ends when the sender goes, the connection breaks or `hang_up` is called.

    `make` is called in its thread and ends with a link; `on_end` is called there, too.
    A sender has one pair at a time that says the same `hello`.
    """

    def __init__(
        self,
        control: socket.socket,
        make: Callable[[], Link],
        hello: Mapping[str, Any],
        targets: Targets,
        on_end: Callable[[ReceivingPair], None],
    ) -> None:
        self.hello = hello
        self._control = control
        self._sender = str(hello["instance_id"])
        self._targets = targets
        self._on_end = on_end
        self._make = make
        self._thread = threading.Thread(target=self._run, name="kv-collective-receive", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def hang_up(self) -> None:
        """Any thread. What is being received ends within the timeout."""
        hang_up(self._control)

    def join(self, timeout_s: float) -> bool:
        """Whether the thread ended by then."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            link = self._make()
        except Exception as error:
            logger.warning("%s: the pair could not be made: %r", self._sender, str(error))
        else:
            self._serve(link)
        finally:
            self._control.close()
            self._on_end(self)

    def _serve(self, link: Link) -> None:
        try:
            Inbox(link, self._targets, self._sender).run()
        except TransferError as error:
            logger.info("%s: %s", self._sender, error)
        except Exception:
            logger.exception("%s: receiving failed", self._sender)
        finally:
            link.close()


class Inbox:
    """Takes frames in order; a payload is put into its blocks while the next one is on the wire."""

    def __init__(self, link: Link, targets: Targets, sender_instance_id: str) -> None:
        self._link = link
        self._targets = targets
        self._sender = sender_instance_id
        self._staging: Staging = staging_for(link.lane)
        self._arrived: Arrived | None = None
        self._slot = 0
        self._num_received = 0
        self._told: set[int] = set()  # leases that were refused while their payloads come

    def run(self) -> None:
        """Until the link breaks: raises TransferError."""
        while True:
            if self._arrived is not None and not self._link.has_frame:
                self._deliver()
            frame = self._link.read()
            if frame.verb is Verb.PAYLOAD:
                self._receive(frame)
            elif frame.verb is Verb.DRAIN:
                self._answer(frame.lease_id)
            else:
                raise TransferError("PROTOCOL", f"a sender said {frame.verb.name}")

    def _receive(self, frame: Frame) -> None:
        if not 0 < frame.size_bytes <= MAX_PAYLOAD_BYTES:
            raise TransferError("PROTOCOL", f"a payload of {frame.size_bytes} bytes")
        slot, self._slot = self._slot, (self._slot + 1) % NUM_SLOTS
        data = self._staging.tensor(slot, frame.size_bytes)
        wait = self._link.lane.receive(data, self._num_received % NUM_TAGS)
        self._num_received += 1
        self._deliver()
        wait()
        self._arrived = Arrived(frame, slot)

    def _deliver(self) -> None:
        arrived, self._arrived = self._arrived, None
        if arrived is None:
            return
        lease_id = arrived.frame.lease_id
        try:
            self._targets.find(lease_id).write(arrived.frame, self._sender, self._staging, arrived.slot)
        except LeaseRefused as refused:
            if lease_id not in self._told:  # the sender need not go on
                self._told.add(lease_id)
                self._refuse(lease_id, refused)

    def _answer(self, lease_id: int) -> None:
        self._deliver()
        self._told.discard(lease_id)
        try:
            size_bytes = self._targets.find(lease_id).received_bytes(self._sender)
        except LeaseRefused as refused:
            self._refuse(lease_id, refused)
        else:
            self._link.tell(Frame(Verb.TAKEN, lease_id, size_bytes=size_bytes))

    def _refuse(self, lease_id: int, refused: LeaseRefused) -> None:
        text = f"lease {lease_id} takes nothing any more: {refused}".encode()[:MAX_REASON_BYTES]
        self._link.tell(Frame(Verb.REFUSED, lease_id, size_bytes=len(text)), text)
