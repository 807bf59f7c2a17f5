"""Whether a model folder can be served, and whether its weights fit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cli.checkup.finding import Finding, fine, note, problem
from core.families import load_family
from core.families.folder import weight_files
from stage_servers.devices import available_memory_bytes, find_gpus

_GIB = 1 << 30


def check_model(folder: Path) -> Iterator[Finding]:
    try:
        family = load_family(folder)
        size_bytes = sum(path.stat().st_size for path in weight_files(folder))
    except (ValueError, OSError) as error:
        yield problem("model", str(error), "download the folder again, whole, or name another with --model")
        return
    said = f"{folder}: {size_bytes / _GIB:.2f} GiB of weights, context of {family.context_tokens} tokens"
    yield fine("model", said)
    yield check_room(size_bytes, max((gpu.free_bytes for gpu in find_gpus()), default=None))


def check_room(size_bytes: int, gpu_bytes: int | None) -> Finding:
    """`gpu_bytes`: free on the emptiest GPU; None: there is none, and weights go to memory."""
    free_bytes = available_memory_bytes() if gpu_bytes is None else gpu_bytes
    where = "memory" if gpu_bytes is None else "the emptiest GPU"
    said = f"{size_bytes / _GIB:.2f} GiB, {free_bytes / _GIB:.1f} GiB are free on {where}"
    if size_bytes > free_bytes:
        return problem("room for weights", said, "free some, take a smaller model or another device")
    if 2 * size_bytes > free_bytes:
        return note(
            "room for weights", f"{said}: little is left for KV", "free some, or a --dtype of 16 bits"
        )
    return fine("room for weights", said)
