"""What instances compute on, from what the user said and the host has."""

from __future__ import annotations

from cli.cores import parse_cores
from stage_servers.devices import available_cores, find_gpus


def choose_devices(wanted: str, num_instances: int | None = None) -> tuple[str, ...]:
    """Devices to hand out in turn; "auto" takes GPUs where there are, commas stand between several.

    Raises ValueError where CUDA is wanted and absent, or a list has an empty place.
    """
    if wanted not in ("auto", "cuda"):
        devices = tuple(each.strip() for each in wanted.split(","))
        if not all(devices):
            raise ValueError(f"device: {wanted!r} names no device")
        return devices
    gpus = find_gpus()
    if wanted == "cuda" and not gpus:
        raise ValueError("device: no CUDA device was found")
    return tuple(f"cuda:{gpu.index}" for gpu in gpus[:num_instances]) or ("cpu",)


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
