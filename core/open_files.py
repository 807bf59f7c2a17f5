"""Connections are open files, of which systems allow a process few unless it asks for more."""

from __future__ import annotations

import logging
import resource

log = logging.getLogger(__name__)

_OTHERS = 512  # files, pipes and what libraries open


def allow_connections(count: int) -> None:
    """Raises this process's limit for so many, as far as the system lets it; logs where that is too few."""
    wanted = count + _OTHERS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if most < wanted:
        log.warning("%d connections need %d open files, the system allows %d", count, wanted, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
