"""Names of hosts, processes' lives and requests."""

from __future__ import annotations

import secrets
import socket
import uuid
from functools import cache
from pathlib import Path


@cache
def host_id() -> str:
    """Equal for processes that can share memory: kernel boot id plus the identity of /dev/shm."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        shm = Path("/dev/shm").stat()
    except OSError:
        return f"{socket.gethostname()}-{uuid.getnode():x}"
    return f"{boot}-{shm.st_dev:x}"


def new_epoch() -> int:
    """A number that no earlier life of this process had (63 bits)."""
    return secrets.randbits(63)


def new_request_id() -> str:
    return f"req-{secrets.token_hex(12)}"


def new_seed() -> int:
    return secrets.randbits(63)
