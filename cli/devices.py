"""What instances compute on, from what the user said and the host has."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cli.cores import parse_cores
from cli.torch_build import build_without_cuda
from stage_servers.devices import Gpu, available_cores, find_gpus


def choose_devices(wanted: str, num_instances: int | None = None) -> tuple[str, ...]:
    """Devices to hand out in turn; "auto" takes GPUs that torch can use, commas stand between several.

    Where torch is built without CUDA, "auto" takes the CPU and says so on the error output. Raises ValueError
    where CUDA is wanted and absent, or a list has an empty place.
    """
    if wanted not in ("auto", "cuda"):
        devices = tuple(each.strip() for each in wanted.split(","))
        if not all(devices):
            raise ValueError(f"device: {wanted!r} names no device")
        return devices
    gpus = find_gpus()
    if wanted == "cuda" and not gpus:
        raise ValueError("device: no CUDA device was found")
    without_cuda = build_without_cuda() if gpus else None
    if without_cuda is not None:
        reason = f"torch {without_cuda} is built without CUDA, and cannot use {_in_words(gpus)}"
        if wanted == "cuda":
            raise ValueError(f"device: {reason}")
        print(f"elasticmm: device: {reason}: taking the CPU (see elasticmm doctor)", file=sys.stderr)
        return ("cpu",)
    return tuple(f"cuda:{gpu.index}" for gpu in gpus[:num_instances]) or ("cpu",)


def _in_words(gpus: Sequence[Gpu]) -> str:
    return f"the {gpus[0].name} that is here" if len(gpus) == 1 else f"the {len(gpus)} GPUs that are here"


def choose_device(wanted: str) -> str:
    """As `choose_devices`, for one stage server; raises ValueError where several are named."""
    first, *others = choose_devices(wanted, 1)
    if others:
        raise ValueError(f"device: one stage server takes one device, not {wanted!r}")
    return first


def choose_cores(wanted: str | None) -> tuple[int, ...]:
    """Those wanted, None: all that this process may use. Raises ValueError naming others."""
    available = available_cores()
    if wanted is None:
        return available
    unavailable = set(parse_cores(wanted)) - set(available)
    if unavailable:
        raise ValueError(f"cores: {sorted(unavailable)} are not available to this process")
    return parse_cores(wanted)
