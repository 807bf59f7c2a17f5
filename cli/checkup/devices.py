"""Whether what the driver shows is what torch can use, and who can copy to whom."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cli.checkup.finding import Finding, fine, note, problem
from stage_servers.devices import Gpu, available_cores, available_memory_bytes, find_gpus

_GIB = 1 << 30
_BUSY_SHARE = 0.1  # of a GPU's memory in use, by whomever


@dataclass(frozen=True, slots=True)
class TorchView:
    """What torch says of CUDA; `failure` is set where it cannot be imported."""

    cuda_version: str | None  # None: a build without CUDA
    num_devices: int
    failure: str = ""


def look_at_torch() -> TorchView:
    try:
        import torch
    except (ImportError, OSError) as error:
        return TorchView(None, 0, str(error))
    return TorchView(torch.version.cuda, torch.cuda.device_count())


def check_devices() -> Iterator[Finding]:
    yield _check_host()
    yield from check_gpus(find_gpus(), look_at_torch())


def check_gpus(gpus: Sequence[Gpu], torch_view: TorchView) -> Iterator[Finding]:
    """`gpus` as the driver has them."""
    if torch_view.failure:
        yield problem("torch", f"cannot be imported: {torch_view.failure}", "install torch anew")
        return
    if not gpus:
        yield fine("GPUs", "the driver (NVML) shows none: instances compute on CPU")
        return
    yield _check_cuda(len(gpus), torch_view)
    for gpu in gpus:
        yield _check_memory(gpu)
    yield from _check_peers(gpus)


def _check_host() -> Finding:
    cores, free_gib = available_cores(), available_memory_bytes() / _GIB
    return fine("host", f"{len(cores)} cores, {free_gib:.1f} GiB of memory free")


def _check_cuda(num_gpus: int, torch_view: TorchView) -> Finding:
    if torch_view.cuda_version is None:
        return problem(
            "CUDA",
            f"the driver shows {num_gpus} GPUs, but this torch is built without CUDA",
            "install a CUDA build of torch, or start with --device cpu",
        )
    if torch_view.num_devices < num_gpus:
        return problem(
            "CUDA",
            f"the driver shows {num_gpus} GPUs, torch {torch_view.num_devices}",
            "unset CUDA_VISIBLE_DEVICES, and see that the driver is new enough for "
            f"CUDA {torch_view.cuda_version} (nvidia-smi)",
        )
    return fine("CUDA", f"{torch_view.cuda_version}, {torch_view.num_devices} GPUs")


def _check_memory(gpu: Gpu) -> Finding:
    said = f"{gpu.name}, {gpu.free_bytes / _GIB:.1f} of {gpu.memory_bytes / _GIB:.1f} GiB free"
    if gpu.free_bytes < (1 - _BUSY_SHARE) * gpu.memory_bytes:
        return note(
            f"GPU {gpu.index}", said, "end what else uses it (nvidia-smi), or leave it out with --device"
        )
    return fine(f"GPU {gpu.index}", said)


def _check_peers(gpus: Sequence[Gpu]) -> Iterator[Finding]:
    if len(gpus) < 2:
        return
    apart = [
        f"{one.index}-{two.index}"
        for one in gpus
        for two in gpus
        if one.index < two.index and two.index not in one.peers
    ]
    if apart:
        yield note(
            "peer access",
            f"not between GPUs {', '.join(apart)}: KV between them goes through host memory",
            "place prefill and decode on peers, or see nvidia-smi topo -p2p r and the IOMMU's settings",
        )
    else:
        yield fine("peer access", "between all GPUs")
