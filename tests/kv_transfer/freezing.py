"""Processes that stop themselves half-way through the carrying of bytes, until they are sent SIGCONT."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Mapping

import torch

from elasticmm.v1 import transfer_pb2
from kv_transfer.descriptors import Copy
from kv_transfer.native.copies import EndCopies
from kv_transfer.transports import grpc_stream
from kv_transfer.transports.collective.groups import GlooLane, Wait
from kv_transfer.transports.grpc_stream import GrpcWriter


def freeze() -> None:
    """Sent to this thread: it does not return before all have stopped and gone on."""
    signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)


def in_a_copy() -> None:
    """Into shared memory: after its first plane, with the check of the lease behind it."""
    run, copied = EndCopies.run, []

    def frozen(self: EndCopies, planes: range, moves: Iterable[Copy], *, to_plane: int | None = None) -> int:
        moves = list(moves)
        if not copied:
            copied.append(True)
            run(self, planes[:1], moves, to_plane=to_plane)
            freeze()
        return run(self, planes, moves, to_plane=to_plane)

    EndCopies.run = frozen  # type: ignore[method-assign]


def in_a_payload() -> None:
    """Of a pair: it was announced, and does not come."""
    send, sent = GlooLane.send, []

    def frozen(self: GlooLane, tensor: torch.Tensor, tag: int) -> Wait:
        if not sent:
            sent.append(True)
            freeze()
        return send(self, tensor, tag)

    GlooLane.send = frozen  # type: ignore[method-assign]


def in_a_stream() -> None:
    """Of gRPC messages, here of one plane each: after the second."""
    grpc_stream.CHUNK_BYTES = 1
    write, written = GrpcWriter._write, []

    async def frozen(self: GrpcWriter, message: transfer_pb2.WriteRequest) -> None:
        await write(self, message)
        written.append(message)
        if len(written) == 2:
            freeze()

    GrpcWriter._write = frozen  # type: ignore[method-assign]


FREEZE: Mapping[str, Callable[[], None]] = {
    "shm": in_a_copy,
    "collective": in_a_payload,
    "grpc": in_a_stream,
}
