"""Metrics of several worker processes, read in one place: each keeps its values in files of its own.

A worker that is started anew under a name goes on where the last one of that name was: no counter falls, no
file is left over. What it had under way is forgotten with its process.
"""

from __future__ import annotations

import os
import shutil
import tempfile

from prometheus_client import CollectorRegistry, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from coordinator.metrics.exposition import exposition

_FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"  # where the library looks for it


class SharedValues:
    """The side that reads."""

    def __init__(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="elasticmm-http-")

    def forget(self, name: str) -> None:
        """The worker of that name has ended."""
        mark_process_dead(name, self.folder)  # type: ignore[no-untyped-call]

    def render(self, accept: str = "") -> tuple[str, bytes]:
        """(content type, body) of all workers' metrics for a client that accepts these types."""
        registry = CollectorRegistry()
        MultiProcessCollector(registry, self.folder)  # type: ignore[no-untyped-call]
        return exposition(registry, accept)

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def share_values(folder: str, name: str) -> None:
    """Metrics that this process makes from now on keep their values there, under a name of no other's."""
    os.environ[_FOLDER_VARIABLE] = folder
    values.ValueClass = values.MultiProcessValue(lambda: name)  # type: ignore[no-untyped-call]
