"""Commits past gRPC, between processes of one host: a record each way on a Unix socket.

The record is a CommitRequest; the answer is a head (lease id, gRPC status number) and a
CommitResponse, or the reason in UTF-8. Whoever gets no answer repeats the commit over gRPC,
which is harmless.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import grpc
from google.protobuf.message import DecodeError

from elasticmm.v1 import transfer_pb2
from kv_transfer.commits import Arrived, CommitRecord
from kv_transfer.errors import TransferError
from kv_transfer.local_socket import connect, listen
from kv_transfer.statuses import KNOWN_ERRORS, cause_of, status_of
from kv_transfer.wire import arrived_from, arrived_to, commit_from, commit_to

logger = logging.getLogger(__name__)

CommitCall = Callable[[CommitRecord], asyncio.Future[Arrived]]

MAX_RECORD_BYTES = 64 << 10  # longer ones (of very many outputs) go over gRPC
_MAX_REASON_BYTES = 4 << 10
_HEAD = struct.Struct("<QI")
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_OK = grpc.StatusCode.OK.value[0]


class CommitListener:
    """The receiver's end, used on its loop, where each record is a call of `commit`.

    Raises OSError if `path` cannot be listened on.
    """

    def __init__(self, path: Path, commit: CommitCall) -> None:
        self.path = path
        self._commit = commit
        self._loop = asyncio.get_running_loop()
        self._connections: set[socket.socket] = set()
        self._buffer = bytearray(MAX_RECORD_BYTES)
        self._socket = listen(path)
        self._loop.add_reader(self._socket, self._accept)

    def close(self) -> None:
        """Takes the name away and ends all connections."""
        self._stop_listening()
        for connection in list(self._connections):
            self._drop(connection)

    def _stop_listening(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self.path.unlink(missing_ok=True)

    def _accept(self) -> None:
        try:
            connection, _ = self._socket.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError:  # would come again at once
            logger.exception("%s: senders commit over gRPC from here on", self.path)
            self._stop_listening()
            return
        connection.setblocking(False)
        self._connections.add(connection)
        self._loop.add_reader(connection, self._read, connection)

    def _read(self, connection: socket.socket) -> None:
        try:
            size_bytes = connection.recv_into(self._buffer)
            message = transfer_pb2.CommitRequest.FromString(bytes(self._buffer[:size_bytes]))
            record = commit_from(message)
        except BlockingIOError:
            return
        except (OSError, DecodeError):
            size_bytes = 0
        if size_bytes == 0:  # the sender is gone, or is none of ours
            self._drop(connection)
            return
        done = self._commit(record)
        if done.done():
            self._answer(connection, record.lease_id, done)
        else:
            done.add_done_callback(lambda done: self._answer(connection, record.lease_id, done))

    def _answer(self, connection: socket.socket, lease_id: int, done: asyncio.Future[Arrived]) -> None:
        try:
            connection.send(_answer(lease_id, done))
        except OSError:  # gone, or it does not read: then it asks over gRPC
            self._drop(connection)

    def _drop(self, connection: socket.socket) -> None:
        if connection in self._connections:
            self._connections.discard(connection)
            self._loop.remove_reader(connection)
            connection.close()


class CommitConnection:
    """The sender's end of one peer's socket. `send` is for any thread, the rest for the loop it was made on.

    `on_lost` is called when the peer ends it, as the end of its process does.
    Raises OSError if nobody listens there.
    """

    def __init__(self, path: Path, on_lost: Callable[[], object] = lambda: None) -> None:
        self.path = path
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._answers: dict[int, asyncio.Future[Arrived | None]] = {}
        self._socket = connect(path)
        self._loop.add_reader(self._socket, self._read)

    @property
    def is_open(self) -> bool:
        return self._socket.fileno() >= 0

    def expect(self, lease_id: int) -> asyncio.Future[Arrived | None]:
        """The answer to this lease's record: raises TransferError, is None once none can come any more."""
        answer = self._answers[lease_id] = self._loop.create_future()
        answer.add_done_callback(lambda _: self._answers.pop(lease_id, None))
        if not self.is_open:
            answer.set_result(None)
        return answer

    def send(self, record: CommitRecord) -> bool:
        """Whether the peer has it; answers come to who `expect`s them. Never waits."""
        data = commit_to(record).SerializeToString()
        if len(data) > MAX_RECORD_BYTES:
            return False
        try:
            # A system call, made after the last byte was copied: what this thread wrote before is seen by
            # whoever takes the record from the socket, on the processors we run on (x86, Arm). The kernel's
            # locks on the socket's queue order both; no further barrier is needed.
            return self._socket.send(data) == len(data)
        except OSError:
            return False

    def close(self) -> None:
        if self.is_open:
            self._loop.remove_reader(self._socket)
            self._socket.close()
        for answer in list(self._answers.values()):
            if not answer.done():
                answer.set_result(None)

    def _read(self) -> None:
        try:
            data = self._socket.recv(MAX_RECORD_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if len(data) < _HEAD.size:  # the peer is gone
            self.close()
            self._on_lost()
            return
        lease_id, number = _HEAD.unpack_from(data)
        answer = self._answers.get(lease_id)
        if answer is not None and not answer.done():
            _settle(answer, number, data[_HEAD.size :])


def _answer(lease_id: int, done: asyncio.Future[Arrived]) -> bytes:
    if done.cancelled():
        return _refusal(lease_id, grpc.StatusCode.CANCELLED, "the receiver shuts down")
    error = done.exception()
    if error is None:
        return _HEAD.pack(lease_id, _OK) + arrived_to(done.result()).SerializeToString()
    if not isinstance(error, KNOWN_ERRORS):
        logger.error("a commit failed", exc_info=error)
    return _refusal(lease_id, status_of(error), str(error))


def _refusal(lease_id: int, code: grpc.StatusCode, reason: str) -> bytes:
    return _HEAD.pack(lease_id, code.value[0]) + reason.encode()[:_MAX_REASON_BYTES]


def _settle(answer: asyncio.Future[Arrived | None], number: int, body: bytes) -> None:
    if number == _OK:
        answer.set_result(arrived_from(transfer_pb2.CommitResponse.FromString(body)))
        return
    code = _CODES.get(number, grpc.StatusCode.UNKNOWN)
    reason = body.decode(errors="replace")
    answer.set_exception(TransferError(cause_of(code), f"commit refused: {code.name}: {reason}"))
