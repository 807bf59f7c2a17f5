"""What this project uses of NIXL: one agent with the UCX backend, and words for what fails."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from kv_transfer.descriptors import ByteRanges, Offsets
from kv_transfer.errors import TransferError

MODULES = ("nixl", "nixl_cu13._bindings", "nixl_cu12._bindings")  # the first picks by torch's CUDA version
BACKEND = "UCX"
# The agent's own thread sleeps until something arrives, at most for this long. With NIXL's default of 0
# it spins: one core per agent.
PROGRESS_PAUSE_US = 100_000
CAUSE = "NIXL"


def refusal() -> str:
    """Why NIXL cannot be had here, in words; empty if it can.

    Only looks: a process that never uses NIXL does not pay for importing it.
    """
    packages = {name.partition(".")[0] for name in MODULES}
    is_installed = any(importlib.util.find_spec(package) is not None for package in packages)
    return "" if is_installed else "nixl is not installed"


@dataclass(frozen=True, slots=True)
class Memory:
    """Consecutive bytes, as NIXL names them."""

    address: int
    size_bytes: int
    kind: str  # "DRAM" or "VRAM"
    device_index: int


@dataclass(frozen=True, slots=True)
class Registered:
    """Memory that an agent may read or peers may write; keeps its tensor alive."""

    memory: Memory
    tensor: torch.Tensor
    descriptors: Any


def memory_of(tensor: torch.Tensor) -> Memory:
    """`tensor` is contiguous."""
    is_cpu = tensor.device.type == "cpu"
    return Memory(
        tensor.data_ptr(), tensor.nbytes, "DRAM" if is_cpu else "VRAM", 0 if is_cpu else tensor.get_device()
    )


class NixlAgent:
    """One end of NIXL. All methods may take a while: not for an event loop. Raises TransferError."""

    def __init__(self, name: str) -> None:
        """`name` is unique among all agents and their lives."""
        with _told("starting the agent"):
            self._nixl = _bindings()
            config = self._nixl.nixlAgentConfig()
            config.useProgThread = True
            config.pthrDelay = PROGRESS_PAUSE_US
            config.syncMode = self._nixl.NIXL_THREAD_SYNC_STRICT
            self._agent = self._nixl.nixlAgent(name, config)
            self._backends = [self._agent.createBackend(BACKEND, {})]

    def register(self, tensor: torch.Tensor) -> Registered:
        memory = memory_of(tensor)
        row = (memory.address, memory.size_bytes, memory.device_index, "")
        with _told("registering memory"), _context(tensor):
            descriptors = self._nixl.nixlRegDList(self._kind(memory.kind), [row])
            self._agent.registerMem(descriptors, self._backends)
        return Registered(memory, tensor, descriptors)

    def deregister(self, registered: Registered) -> None:
        with _told("deregistering memory"):
            self._agent.deregisterMem(registered.descriptors, self._backends)

    def metadata(self) -> bytes:
        """What another agent must load to write into what is registered here."""
        with _told("describing the agent"):
            data: bytes = self._agent.getLocalMD()
        return data

    def load(self, metadata: bytes) -> str:
        """The name of the agent that it describes; loading anew adds what it registered since."""
        with _told("loading the peer's agent"):
            name: bytes = self._agent.loadRemoteMD(metadata)
        return name.decode()

    def drop(self, peer: str) -> None:
        """Ends the connection. A peer that is gone already is no error."""
        with contextlib.suppress(TransferError), _told("dropping the peer"):
            self._agent.invalidateRemoteMD(peer)

    def write(self, peer: str, ranges: ByteRanges, source: Memory, target: Memory) -> int:
        """Posts one write of ranges of both memories; the handle must be released when it is done."""
        with _told("writing"):
            handle: int = self._agent.createXferReq(
                self._nixl.NIXL_WRITE,
                self._rows(ranges.source_offsets, ranges.lengths, source),
                self._rows(ranges.target_offsets, ranges.lengths, target),
                peer,
                "",
                self._backends,
            )
            try:
                self._agent.postXferReq(handle, b"")
            except BaseException:
                self._agent.releaseXferReq(handle)
                raise
        return handle

    def is_done(self, handle: int) -> bool:
        """Whether all is in the peer's memory. Raises TransferError if it never will be."""
        with _told("writing"):
            status = self._agent.getXferStatus(handle)
        if status in (self._nixl.NIXL_SUCCESS, self._nixl.NIXL_IN_PROG):
            return bool(status == self._nixl.NIXL_SUCCESS)
        raise TransferError(CAUSE, f"writing: {status.name}")

    def release(self, handle: int) -> None:
        """Once per handle."""
        with contextlib.suppress(TransferError), _told("releasing a write"):
            self._agent.releaseXferReq(handle)

    def close(self) -> None:
        """Ends the agent's threads and connections."""
        del self._agent

    def _kind(self, kind: str) -> Any:
        return self._nixl.DRAM_SEG if kind == "DRAM" else self._nixl.VRAM_SEG

    def _rows(self, offsets: Offsets, lengths: Offsets, memory: Memory) -> Any:
        table = np.empty((len(offsets), 3), np.uint64)
        table[:, 0], table[:, 1], table[:, 2] = memory.address + offsets, lengths, memory.device_index
        return self._nixl.nixlXferDList(self._kind(memory.kind), table)


@contextlib.contextmanager
def _told(verb: str) -> Iterator[None]:
    """NIXL's exceptions, one type per status without a common one, as TransferError."""
    try:
        yield
    except Exception as error:
        raise TransferError(CAUSE, f"{verb}: {error or type(error).__name__}") from error


def _context(tensor: torch.Tensor) -> contextlib.AbstractContextManager[object]:
    """UCX looks at device memory through the thread's current CUDA context."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()


def _bindings() -> Any:
    """Raises ImportError, the most telling one of those there are."""
    broken: ImportError | None = None
    for name in MODULES:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        except ImportError as error:  # e.g. the package without a backend that fits
            broken = broken or error
    raise broken or ModuleNotFoundError("nixl")
