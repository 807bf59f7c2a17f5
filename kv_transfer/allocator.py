"""The C allocator's habits, where messages of megabytes come and go."""

from __future__ import annotations

import ctypes

# Numbers of glibc's mallopt.
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_THRESHOLD = -3

KEPT_BYTES = 64 << 20


def keep_freed_memory() -> bool:
    """Lets this process keep up to 64 MiB of freed memory instead of giving it back at once.

    By default glibc maps and unmaps the buffers of each large message, and the
    page faults cost more than the copies: the gRPC stream ran three times as fast
    with this. Returns whether the allocator takes settings (glibc does).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_M_MMAP_THRESHOLD, 8 << 20), (_M_TRIM_THRESHOLD, KEPT_BYTES), (_M_TOP_PAD, 4 << 20))
    accepted = [mallopt(number, value) == 1 for number, value in settings]
    return all(accepted)
