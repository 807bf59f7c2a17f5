"""What this project uses of CUDA's inter-process memory, and of torch's streams beside it."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch

from kv_transfer.source import Fence

HANDLE_BYTES = 64
LAZY_PEER_ACCESS = 1  # CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS, the only flag there is
# From here on one plane at a time is a plain copy at full speed; below, launches would cost more than bytes.
WHOLE_PLANE_BYTES = 16 << 20
_WORDS = ((8, torch.int64), (4, torch.int32), (2, torch.int16), (1, torch.uint8))


class CudaError(RuntimeError):
    """The driver refused; the message says what it said."""


class _Handle(ctypes.Structure):
    """CUipcMemHandle."""

    _fields_ = (("reserved", ctypes.c_ubyte * HANDLE_BYTES),)


@dataclass(frozen=True, slots=True)
class Exported:
    """Device memory as another process of this host can open it."""

    handle: bytes  # of the whole allocation that it lies in
    offset_bytes: int
    device_uuid: str


@dataclass(frozen=True, slots=True)
class Mapped:
    """Another process's allocation in this one."""

    address: int
    device: torch.device


@dataclass(frozen=True, slots=True)
class _Span:
    """Device memory as torch takes it in without a copy."""

    address: int
    size_bytes: int

    @property
    def __cuda_array_interface__(self) -> dict[str, object]:
        return {"shape": (self.size_bytes,), "typestr": "|u1", "data": (self.address, False), "version": 2}


def refusal() -> str:
    """Why there is no CUDA here, in words; empty if there is."""
    if torch.version.cuda is None:
        return "torch is built without CUDA"
    return "" if torch.cuda.is_available() else "no CUDA device is here"


class CudaDriver:
    """The driver's calls that torch does not offer, in any thread. All raise CudaError."""

    @cached_property
    def _library(self) -> ctypes.CDLL:
        library = ctypes.CDLL("libcuda.so.1")
        library.cuIpcOpenMemHandle_v2.argtypes = (ctypes.c_void_p, _Handle, ctypes.c_uint)
        torch.cuda.init()  # type: ignore[no-untyped-call]
        return library

    def export(self, tensor: torch.Tensor) -> Exported:
        """`tensor` is contiguous and lives as long as it is shared."""
        if not tensor.is_cuda:
            raise CudaError("the pool lies in host memory")
        base, size, handle = ctypes.c_uint64(), ctypes.c_size_t(), _Handle()
        address = ctypes.c_uint64(tensor.data_ptr())
        with self._current(tensor.get_device()):
            self._call("cuMemGetAddressRange_v2", ctypes.byref(base), ctypes.byref(size), address)
            try:
                self._call("cuIpcGetMemHandle", ctypes.byref(handle), base)
            except CudaError as error:
                raise CudaError(f"{error}{_hint()}") from error
        return Exported(bytes(handle.reserved), tensor.data_ptr() - base.value, _uuid(tensor.get_device()))

    def open(self, exported: Exported) -> Mapped:
        """The whole allocation; open it once and close it once. Not for memory of this process."""
        if len(exported.handle) != HANDLE_BYTES:
            raise CudaError(f"handle: {len(exported.handle)} bytes instead of {HANDLE_BYTES}")
        index = self._index(exported.device_uuid)
        address = ctypes.c_uint64()
        handle = _Handle.from_buffer_copy(exported.handle)
        with self._current(index):
            self._call("cuIpcOpenMemHandle_v2", ctypes.byref(address), handle, LAZY_PEER_ACCESS)
        return Mapped(address.value, torch.device("cuda", index))

    def close(self, mapped: Mapped) -> None:
        """No copy to it is under way any more."""
        with self._current(mapped.device.index):
            self._call("cuIpcCloseMemHandle", ctypes.c_uint64(mapped.address))

    def memory(self, mapped: Mapped, offset_bytes: int, size_bytes: int) -> torch.Tensor:
        """Bytes [size_bytes] of a mapping, without a copy."""
        span = _Span(mapped.address + offset_bytes, size_bytes)
        tensor = torch.as_tensor(span, device=mapped.device)
        if tensor.data_ptr() != span.address:
            raise CudaError("torch does not take the mapping as memory of its device")
        return tensor

    def check_access(self, source: torch.device, target: torch.device) -> None:
        """Whether one GPU can write to the other; host memory can be copied to any."""
        if source.type != "cuda" or source == target:
            return
        if not torch.cuda.can_device_access_peer(source, target):
            raise CudaError(f"{source} has no peer access to {target}")

    def stream(self, device: torch.device) -> CopyStream:
        return CopyStream(device)

    def _index(self, uuid: str) -> int:
        for index in range(torch.cuda.device_count()):
            if _uuid(index) == uuid:
                return index
        raise CudaError(f"the GPU {uuid} is not visible to this process")

    @contextlib.contextmanager
    def _current(self, index: int) -> Iterator[None]:
        """The device's primary context, which torch uses too, made current in this thread."""
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self._call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(index))
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        try:
            self._call("cuCtxPushCurrent_v2", context)
            try:
                yield
            finally:
                self._call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))
        finally:
            self._call("cuDevicePrimaryCtxRelease_v2", device)

    def _call(self, name: str, *arguments: object) -> None:
        status: int = getattr(self._library, name)(*arguments)
        if status:
            raise CudaError(f"{name}: {self._words(status)}")

    def _words(self, status: int) -> str:
        words = []
        for name in ("cuGetErrorName", "cuGetErrorString"):
            text = ctypes.c_char_p()
            getattr(self._library, name)(status, ctypes.byref(text))
            words.append((text.value or b"?").decode())
        return f"{words[0]} ({words[1]})"


class CopyStream:
    """A stream of its own for copies between devices; nothing here waits on the host."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def wait(self, fence: Fence) -> None:
        """What is put on the stream from now on runs after the fence's work."""
        self._stream.wait_event(fence)  # type: ignore[arg-type]

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        """Both [planes, pieces, tokens, heads, head_bytes] bytes."""
        with torch.cuda.stream(self._stream):
            for one, other in zip(pieces(target), pieces(source), strict=True):
                one.copy_(other, non_blocking=True)

    def record(self) -> Done:
        """A mark that is reached when all that was put on the stream is over."""
        return Done(self._stream.record_event())


class Done:
    """Asked again and again by one thread."""

    def __init__(self, event: torch.cuda.Event) -> None:
        self._event = event

    @property
    def is_reached(self) -> bool:
        """Raises RuntimeError if the work failed."""
        return bool(self._event.query())  # type: ignore[no-untyped-call]


def pieces(data: torch.Tensor) -> list[torch.Tensor]:
    """Bytes [planes, …, head_bytes] as the widest words that fit, all at once or by plane."""
    words = data.view(next(dtype for size, dtype in _WORDS if data.shape[-1] % size == 0))
    return list(words) if words[0].nbytes >= WHOLE_PLANE_BYTES else [words]


def _uuid(index: int) -> str:
    return str(torch.cuda.get_device_properties(index).uuid)


def _hint() -> str:
    names = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
    settings = ",".join(os.environ.get(name, "") for name in names)
    is_likely = "expandable_segments" in settings or "cudaMallocAsync" in settings
    return (
        f"; {names[0]}: memory of expandable segments or cudaMallocAsync cannot be shared"
        if is_likely
        else ""
    )
