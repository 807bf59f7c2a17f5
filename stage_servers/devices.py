"""What compute this host has: GPUs through NVML, cores and memory through psutil."""

from __future__ import annotations

import os
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class Gpu:
    """One NVIDIA GPU as the driver reports it."""

    index: int
    name: str
    memory_bytes: int
    free_bytes: int
    utilisation: float  # 0 to 1, over the driver's last sample
    peers: tuple[int, ...]  # GPUs it can copy to and from directly


def find_gpus() -> tuple[Gpu, ...]:
    """All GPUs of this host; empty where there is no driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        return tuple(_describe(index, handles) for index in range(len(handles)))
    finally:
        pynvml.nvmlShutdown()


def _describe(index: int, handles: list[object]) -> Gpu:
    import pynvml

    handle = handles[index]
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    name = pynvml.nvmlDeviceGetName(handle)
    try:
        utilisation = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
    except pynvml.NVMLError:  # not every card or partition reports it
        utilisation = 0.0
    return Gpu(
        index=index,
        name=name.decode() if isinstance(name, bytes) else name,
        memory_bytes=int(memory.total),
        free_bytes=int(memory.free),
        utilisation=utilisation,
        peers=tuple(
            other for other in range(len(handles)) if other != index and _are_peers(handle, handles[other])
        ),
    )


def _are_peers(one: object, other: object) -> bool:
    import pynvml

    try:
        status = pynvml.nvmlDeviceGetP2PStatus(one, other, pynvml.NVML_P2P_CAPS_INDEX_READ)
    except pynvml.NVMLError:
        return False
    return bool(status == pynvml.NVML_P2P_STATUS_OK)


def available_cores() -> tuple[int, ...]:
    """CPU cores this process may run on."""
    return tuple(sorted(os.sched_getaffinity(0)))


def available_memory_bytes() -> int:
    return int(psutil.virtual_memory().available)


def device_name(device: str, cores: tuple[int, ...]) -> str:
    """How status names a device: "cpu:0-1", "cuda:0 NVIDIA H200", "emulated:cpu-demo"."""
    if device.startswith("emulated:"):
        return device
    if not device.startswith("cuda"):
        return f"cpu:{_ranges(cores)}"
    index = int(device.partition(":")[2] or 0)
    gpu = next((gpu for gpu in find_gpus() if gpu.index == index), None)
    return f"cuda:{index} {gpu.name}" if gpu else f"cuda:{index}"


def _ranges(cores: tuple[int, ...]) -> str:
    """(0, 1, 2, 5) as "0-2,5"."""
    runs: list[list[int]] = []
    for core in sorted(cores):
        if runs and core == runs[-1][1] + 1:
            runs[-1][1] = core
        else:
            runs.append([core, core])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)
