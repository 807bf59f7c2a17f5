"""The thread that copies for all of a sender's direct writers, a slice of each in turn."""

from __future__ import annotations

import queue
import threading
from typing import Protocol


class Slices(Protocol):
    """Work that is done piece by piece."""

    def run_slice(self) -> bool:
        """Does a bounded piece; returns whether there is more. Raises nothing."""


class Copier:
    """Started by the first work; ends with `close`.

    Long transfers do not hold up short ones: what has more to do goes to the
    end of the line after each slice.
    """

    def __init__(self) -> None:
        self._line: queue.SimpleQueue[Slices | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, work: Slices) -> None:
        """Any thread. Work must not be in the line twice."""
        self._line.put(work)

    def start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="kv-copier", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Ends the thread after the slice it is at; work in line is done first."""
        if self._thread is not None:
            self._line.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while (work := self._line.get()) is not None:
            if work.run_slice():
                self._line.put(work)
            del work  # an idle thread holds no transfer's memory
