"""A driver that plays GPUs in host memory, for what cuda_ipc decides and in which order it works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from kv_transfer.transports.cuda_driver import CudaError, Exported, Mapped, pieces


class FakeFence:
    """Work of the engine that is over when the test says so."""

    def __init__(self, work: Callable[[], object] = lambda: None) -> None:
        self.work = work
        self.is_over = False

    def finish(self) -> None:
        self.work()
        self.is_over = True

    def synchronize(self) -> None:
        raise AssertionError("the host waited for the device")


class FakeStream:
    """Runs what was put on it, in order, when a mark is asked for; stops at a fence that is not over."""

    def __init__(self) -> None:
        self.queue: list[FakeFence | Callable[[], object]] = []
        self.num_copies = 0

    def wait(self, fence: FakeFence) -> None:
        self.queue.append(fence)

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        self.num_copies += 1
        pairs = zip(pieces(target), pieces(source), strict=True)
        self.queue.extend(lambda one=one, other=other: one.copy_(other) for one, other in pairs)

    def record(self) -> FakeMark:
        mark = FakeMark(self)
        self.queue.append(mark.reach)
        return mark

    def run(self) -> None:
        while self.queue and not (isinstance(self.queue[0], FakeFence) and not self.queue[0].is_over):
            step = self.queue.pop(0)
            if not isinstance(step, FakeFence):
                step()


class FakeMark:
    def __init__(self, stream: FakeStream) -> None:
        self._stream = stream
        self._is_reached = False

    def reach(self) -> None:
        self._is_reached = True

    @property
    def is_reached(self) -> bool:
        self._stream.run()
        return self._is_reached


@dataclass
class FakeCuda:
    """Set `problems` by method to have them refuse; `opened` and `closed` list addresses."""

    problems: dict[str, str] = field(default_factory=dict)
    exported: list[torch.Tensor] = field(default_factory=list)
    opened: list[int] = field(default_factory=list)
    closed: list[int] = field(default_factory=list)
    streams: list[FakeStream] = field(default_factory=list)

    def export(self, tensor: torch.Tensor) -> Exported:
        self._check("export")
        self.exported.append(tensor)
        return Exported(bytes([len(self.exported)]) * 64, 512, "GPU-1")

    def open(self, exported: Exported) -> Mapped:
        self._check("open")
        self.opened.append(exported.handle[0])
        return Mapped(exported.handle[0], torch.device("cpu"))

    def close(self, mapped: Mapped) -> None:
        self.closed.append(mapped.address)
        self._check("close")

    def memory(self, mapped: Mapped, offset_bytes: int, size_bytes: int) -> torch.Tensor:
        self._check("memory")
        memory = self.exported[mapped.address - 1].view(torch.uint8)
        assert (offset_bytes, size_bytes) == (512, memory.nbytes)
        return memory

    def check_access(self, source: torch.device, target: torch.device) -> None:
        del source, target
        self._check("check_access")

    def stream(self, device: torch.device) -> FakeStream:
        del device
        self.streams.append(FakeStream())
        return self.streams[-1]

    def _check(self, method: str) -> None:
        if method in self.problems:
            raise CudaError(self.problems[method])
