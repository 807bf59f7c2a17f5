"""Process groups of two, made directly: no global default group, no rank beyond the pair."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

from kv_transfer.errors import TransferError

RECEIVER_RANK = 1
SENDER_RANK = 0
GLOO = "gloo"
NCCL = "nccl"
NUM_TAGS = 16  # both ends number payloads: what arrives is what its frame announced
_EVENT_POLL_S = 50e-6

Wait = Callable[[], None]

# Without types: torch exports these only where it was built with them.
_distributed: Any = distributed
_cuda: Any = torch.cuda


def refusal() -> str:
    """Why this installation has no such groups; empty if it has."""
    if not distributed.is_available():
        return "torch was built without distributed"
    return "" if distributed.is_gloo_available() else "torch was built without gloo"


def has_nccl() -> bool:
    return distributed.is_available() and distributed.is_nccl_available() and torch.cuda.is_available()


class Rendezvous:
    """The store by which two ends find each other; the receiver owns it, for one pair only.

    So its keys and its port go with the pair.
    """

    def __init__(self, address: str, timeout_s: float, port: int | None = None) -> None:
        """Without `port` a new store that listens on `address` only, else a connection to one."""
        timeout = timedelta(seconds=timeout_s)
        if port is not None:
            self.store = _distributed.TCPStore(
                address, port, is_master=False, wait_for_workers=False, timeout=timeout
            )
            return
        listener = socket.create_server((address, 0), family=_family(address))
        port = int(listener.getsockname()[1])
        self.store = _distributed.TCPStore(
            address,
            port,
            is_master=True,
            wait_for_workers=False,
            timeout=timeout,
            master_listen_fd=listener.detach(),  # the store would listen on every interface
        )

    @property
    def port(self) -> int:
        return int(self.store.port)


class GlooLane:
    """Payloads between tensors in host memory; `address` chooses the interface."""

    device = torch.device("cpu")

    def __init__(self, rendezvous: Rendezvous, rank: int, address: str, timeout_s: float) -> None:
        """Blocks until the other end is there. Raises RuntimeError."""
        gloo = _distributed.ProcessGroupGloo
        options = gloo._Options()
        options._devices = [gloo.create_device(hostname=address)]
        options._threads = 1
        options._timeout = timedelta(seconds=timeout_s)
        self._group: Any = gloo(rendezvous.store, rank, 2, options)
        self._timeout = timedelta(seconds=timeout_s)
        self._peer = 1 - rank

    def send(self, tensor: torch.Tensor, tag: int) -> Wait:
        """What it returns is called once, and waits until the tensor may be written again."""
        return self._waiting(lambda: self._group.send([tensor], self._peer, tag))

    def receive(self, tensor: torch.Tensor, tag: int) -> Wait:
        """What it returns is called once, and waits until the bytes are there."""
        return self._waiting(lambda: self._group.recv([tensor], self._peer, tag))

    def close(self) -> None:
        """Breaks the connection; what the peer waits for fails."""
        self._group = None

    def _waiting(self, begin: Callable[[], Any]) -> Wait:
        """Errors are made anew: those of gloo hold the connection as long as their traceback lives."""
        try:
            work = begin()
        except RuntimeError as error:
            reason = str(error)
        else:
            return lambda: _wait(work, self._timeout)
        raise _lost(reason)


class NcclLane:
    """Payloads between tensors on this device, on a side stream.

    NCCL's own watchdog would end the process when a peer is lost, so it is off here,
    and each wait has a deadline of its own.
    """

    def __init__(self, rendezvous: Rendezvous, rank: int, device: torch.device, timeout_s: float) -> None:
        """Blocks until the other end is there. Raises RuntimeError, where two ends share one GPU too."""
        os.environ["TORCH_NCCL_ASYNC_ERROR_HANDLING"] = "0"
        os.environ["TORCH_NCCL_ENABLE_MONITORING"] = "0"
        torch.cuda.set_device(device)
        nccl = _distributed.ProcessGroupNCCL
        options = nccl.Options()
        options._timeout = timedelta(seconds=timeout_s)
        self.device = device
        self.stream = _cuda.Stream(device)
        self._group: Any = nccl(rendezvous.store, rank, 2, options)
        self._timeout_s = timeout_s
        self._peer = 1 - rank
        probe = torch.zeros(1, device=device)  # the communicator is made by the first payload
        try:
            (self.send(probe, 0) if rank == SENDER_RANK else self.receive(probe, 0))()
        except BaseException:
            self.close()
            raise

    def send(self, tensor: torch.Tensor, tag: int) -> Wait:
        return self._waiting(lambda: self._group.send([tensor], self._peer, tag))

    def receive(self, tensor: torch.Tensor, tag: int) -> Wait:
        return self._waiting(lambda: self._group.recv([tensor], self._peer, tag))

    def close(self) -> None:
        """Aborts what is under way: a kernel that waits for a lost peer would wait for ever."""
        group, self._group = self._group, None
        if group is not None:
            group.abort()

    def _waiting(self, begin: Callable[[], Any]) -> Wait:
        with torch.cuda.stream(self.stream):
            begin().wait()  # of the stream, not of this thread
            event = self.stream.record_event()
        return lambda: self._until(event)

    def _until(self, event: Any) -> None:
        deadline_s = time.monotonic() + self._timeout_s
        while not event.query():
            if time.monotonic() > deadline_s:
                raise _lost("Timed out waiting for the device")
            time.sleep(_EVENT_POLL_S)


Lane = GlooLane | NcclLane


def _wait(work: Any, timeout: timedelta) -> None:
    try:
        work.wait(timeout)
    except RuntimeError as error:
        reason = str(error)
    else:
        return
    raise _lost(reason)


def _lost(reason: str) -> TransferError:
    cause = "TIMEOUT" if "Timed out" in reason else "PEER_LOST"
    return TransferError(cause, f"the pair broke: {reason.splitlines()[0] if reason else 'without a reason'}")


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET
