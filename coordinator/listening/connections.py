"""How many connections gRPC's listeners have.

gRPC closes those past its bound without a word: no interceptor, log or counter of its own tells. How many are
open stands in the kernel's tables.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from coordinator.listening.crowd import Crowd

log = logging.getLogger(__name__)

_TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
_ESTABLISHED = re.compile(rb"^ *\d+: [0-9A-F]+:([0-9A-F]{4}) [0-9A-F]+:[0-9A-F]{4} 01 ", re.MULTILINE)
_INTERVAL_S = 5.0

Port = Callable[[], int | None]


class GrpcConnections:
    """Each crowd's `num_inside` is that of its port, some seconds old; nobody can count whom gRPC refuses.

    Ports are asked for each time: a media gateway that is started again has another.
    """

    def __init__(self, ports: Mapping[Crowd, Port]) -> None:
        self._ports = ports
        self._full: set[Crowd] = set()

    async def watch_forever(self) -> None:
        """Where the system has no such tables, nothing is counted."""
        while True:
            self.note(await asyncio.to_thread(established))
            await asyncio.sleep(_INTERVAL_S)

    def note(self, found: Mapping[int, int]) -> None:
        """Connections by port. Who comes to be full is logged."""
        for crowd, port in self._ports.items():
            crowd.num_inside = found.get(port() or 0, 0)
        full = {crowd for crowd in self._ports if crowd.num_inside >= crowd.most}
        for crowd in full - self._full:
            log.warning(
                "%s: %d, as many as may be (%s): gRPC closes further ones without a word",
                crowd.name,
                crowd.num_inside,
                crowd.setting,
            )
        self._full = full


def established() -> Counter[int]:
    """Connections of this host (or network namespace), by their local port."""
    tables = [table.read_bytes() for table in _TABLES if table.exists()]
    return Counter(int(port, 16) for table in tables for port in _ESTABLISHED.findall(table))
