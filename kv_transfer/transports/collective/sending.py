"""The sending end of one pair: a thread that sends slices of its transfers in turn."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Protocol

import torch

from kv_transfer.errors import TransferError
from kv_transfer.transports.backlog import Batch
from kv_transfer.transports.base import Transfer
from kv_transfer.transports.collective.frames import Frame, Verb
from kv_transfer.transports.collective.groups import NUM_TAGS, Wait
from kv_transfer.transports.collective.link import Link
from kv_transfer.transports.collective.staging import NUM_SLOTS, Staging, staging_for


class PairUser(Protocol):
    """A transfer on a pair; called in the pair's thread, but for `fail` where the pair is over."""

    @property
    def lease_id(self) -> int: ...

    def run_slice(self, outbox: Outbox) -> bool:
        """Sends a bounded piece; returns whether there is more. Raises TransferError if the pair broke."""

    def taken(self, size_bytes: int) -> None:
        """The receiver has that much of it in its blocks."""

    def fail(self, error: TransferError) -> None:
        """It cannot succeed any more."""


class Outbox:
    """Two slices at most are on their way; used in the pair's thread."""

    def __init__(self, link: Link, timeout_s: float) -> None:
        self.asked: OrderedDict[int, float] = OrderedDict()  # lease id: until when its answer must come
        self._link = link
        self._timeout_s = timeout_s
        self._staging: Staging = staging_for(link.lane)
        self._waits: list[Wait | None] = [None] * NUM_SLOTS
        self._slot = 0
        self._num_sent = 0

    def free_slot(self) -> int:
        """Waits until a buffer may be written."""
        slot, self._slot = self._slot, (self._slot + 1) % NUM_SLOTS
        wait, self._waits[slot] = self._waits[slot], None
        if wait is not None:
            wait()
        return slot

    def gather(self, slot: int, transfer: Transfer, batch: Batch) -> torch.Tensor:
        """The batch's bytes in a buffer; the source was read."""
        return self._staging.gather(slot, transfer.source, transfer.heads, batch)

    def send(self, slot: int, lease_id: int, batch: Batch, data: torch.Tensor) -> int:
        """Returns how many bytes are on their way."""
        planes = batch.planes
        frame = Frame(
            Verb.PAYLOAD,
            lease_id,
            planes.start,
            len(planes),
            batch.first_token,
            batch.num_tokens,
            data.nbytes,
        )
        self._link.tell(frame)
        self._waits[slot] = self._link.lane.send(data, self._num_sent % NUM_TAGS)
        self._num_sent += 1
        return frame.size_bytes

    def ask(self, lease_id: int) -> None:
        """All of this lease was sent: the receiver is to say what it has."""
        self._link.tell(Frame(Verb.DRAIN, lease_id))
        self.asked[lease_id] = time.monotonic() + self._timeout_s

    def check_answers(self) -> float | None:
        """Seconds until the next answer must be there; raises TransferError if one is overdue."""
        due_s = next(iter(self.asked.values()), None)
        if due_s is None:
            return None
        left_s = due_s - time.monotonic()
        if left_s < 0:
            raise TransferError("TIMEOUT", f"the receiver did not answer within {self._timeout_s:g} s")
        return left_s


class SendingPair:
    """Made by its thread, from `dial`; `made` is resolved on the loop that it was created on.

    After it broke, or `close`, it is never used again: the next transfer makes another.
    """

    def __init__(self, dial: Callable[[], Link], timeout_s: float) -> None:
        self.made: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_over = False
        self._error = TransferError("ENDED", "the pair was closed")
        self._dial = dial
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._users: dict[int, PairUser] = {}
        self._line: deque[PairUser] = deque()
        self._is_closing = False
        self._bell, self._ringer = socket.socketpair()
        self._bell.setblocking(False)
        self._ringer.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="kv-collective-send", daemon=True)
        self._thread.start()

    def add(self, user: PairUser) -> None:
        """On the loop; fails the user if the pair is over."""
        with self._lock:
            if not self.is_over:
                self._users[user.lease_id] = user
                return
        user.fail(self._error)

    def remove(self, user: PairUser) -> None:
        """Any thread."""
        with self._lock:
            self._users.pop(user.lease_id, None)

    def submit(self, user: PairUser) -> None:
        """Any thread. A user must not be in line twice."""
        with self._lock:
            self._line.append(user)
            self._ring()

    def close(self) -> None:
        """Any thread; the pair's ends after the slice it is at."""
        with self._lock:
            self._is_closing = True
            self._ring()

    def join(self, timeout_s: float) -> bool:
        """Whether the thread ended by then."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _ring(self) -> None:
        """Under the lock, so that the bell is not closed meanwhile."""
        if not self.is_over:
            with contextlib.suppress(BlockingIOError):  # enough rings wait to be heard
                self._ringer.send(b"!")

    def _run(self) -> None:
        try:
            link = self._dial()
        except Exception as error:
            self._error = TransferError("ATTACH", f"the pair could not be made: {error}")
            self._end()
            self._tell(self._error)
            return
        self._tell(None)
        try:
            self._serve(link)
        except TransferError as error:
            self._error = TransferError(error.cause, str(error))
        except Exception as error:
            self._error = TransferError("INTERNAL", f"sending failed: {error!r}")
        finally:
            link.close()
            self._end()

    def _serve(self, link: Link) -> None:
        outbox = Outbox(link, self._timeout_s)
        poll = select.poll()
        poll.register(self._bell, select.POLLIN)
        poll.register(link.control, select.POLLIN)
        while not self._is_closing:
            left_s = 0.0 if self._line else outbox.check_answers()
            poll.poll(None if left_s is None else 1000 * left_s)
            with contextlib.suppress(BlockingIOError):
                self._bell.recv(4096)
            while link.has_frame:
                self._hear(link, outbox)
            if self._line:
                user = self._line.popleft()
                if user.run_slice(outbox):
                    self._line.append(user)
                del user  # an idle thread holds no transfer's memory

    def _hear(self, link: Link, outbox: Outbox) -> None:
        frame = link.read()
        user = self._users.get(frame.lease_id)
        if frame.verb is Verb.TAKEN:
            outbox.asked.pop(frame.lease_id, None)
            if user is not None:
                user.taken(frame.size_bytes)
            return
        reason = link.read_reason(frame)
        outbox.asked.pop(frame.lease_id, None)
        if user is not None:
            user.fail(TransferError("REFUSED", reason))

    def _end(self) -> None:
        with self._lock:
            self.is_over = True
            users = list(self._users.values())
            self._users.clear()
            self._line.clear()
            self._bell.close()
            self._ringer.close()
        for user in users:
            user.fail(self._error)

    def _tell(self, error: TransferError | None) -> None:
        def resolve() -> None:
            if self.made.done():
                return
            if error is None:
                self.made.set_result(None)
            else:
                self.made.set_exception(error)
                self.made.exception()  # it is no fault that nobody waits any more

        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(resolve)
