"""How long another thread has to wait for Python's lock while a picture is decoded, by kind of file."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from benchmarks.encoding.files import make_file
from stage_servers.engine.media import decode_picture

SIZES = ((2016, 1512), (4032, 3024))
KINDS = ("PNG", "JPEG", "JPEG progressive", "WEBP", "WEBP lossless", "GIF", "BMP", "TIFF", "TIFF deflate")
_NAP_S = 0.0003
_ROUNDS = 7


@dataclass(frozen=True, slots=True)
class Pauses:
    """Medians of some rounds."""

    kind: str
    pixels: int
    decode_s: float
    longest_s: float  # from one look at the clock to the next, a nap of 0.3 ms between them included


class Sleeper:
    """A thread that naps again and again and looks at the clock: what runs long without the lock does not
    delay it, what holds the lock does.
    """

    def __init__(self) -> None:
        self._looks_s: list[float] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        over = threading.Event()
        thread = threading.Thread(target=self._run, args=(over,))
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def longest_s(self, work: Callable[[], object]) -> tuple[float, float]:
        """Seconds that `work` takes, and the longest between two looks meanwhile."""
        first, started_s = len(self._looks_s), time.perf_counter()
        work()
        ended_s = time.perf_counter()
        time.sleep(10 * _NAP_S)  # so that a look has ended what the end of the work held up
        looks = [started_s, *self._looks_s[first:]]
        gaps = [after - before for before, after in pairwise(looks) if before < ended_s]
        return ended_s - started_s, max(gaps, default=0.0)

    def _run(self, over: threading.Event) -> None:
        while not over.is_set():
            self._looks_s.append(time.perf_counter())
            time.sleep(_NAP_S)


def measure_pauses(kind: str, size: tuple[int, int], rounds: int = _ROUNDS) -> Pauses:
    sleeper, data = Sleeper(), make_file(kind, *size)
    decode_picture(data)
    with sleeper.running():
        taken = [sleeper.longest_s(lambda: decode_picture(data)) for _ in range(rounds)]
    return Pauses(
        kind,
        size[0] * size[1],
        median(decode_s for decode_s, _ in taken),
        median(gap_s for _, gap_s in taken),
    )
