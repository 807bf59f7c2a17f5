"""The thread that posts and polls for writers whose bytes are moved by others."""

from __future__ import annotations

import queue
import threading
from collections import deque
from enum import Enum
from typing import Protocol

SHORTEST_PAUSE_S = 20e-6
LONGEST_PAUSE_S = 2e-3
PAUSE_GROWTH = 1.125  # what ends is found out late by an eighth of the wait at most


class Turn(Enum):
    """What became of one turn."""

    MOVED = "moved"  # something was done
    WAITS = "waits"  # for what others do
    DONE = "done"  # leaves the line


class TurnWork(Protocol):
    """Work that waits for others between its pieces."""

    def run_turn(self) -> Turn:
        """Does a bounded piece, or looks whether it can. Raises nothing."""


class Poller:
    """Gives each in its line a turn, over and over; sleeps while the line is empty.

    While all wait it pauses, each time for somewhat longer, up to `LONGEST_PAUSE_S`;
    new work ends a pause.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._new: queue.SimpleQueue[TurnWork | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, work: TurnWork) -> None:
        """Any thread. Work must not be in the line twice."""
        self._new.put(work)

    def start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Ends the thread after the turns of what is in line; what waits is left as it is."""
        if self._thread is not None:
            self._new.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        line: deque[TurnWork] = deque()
        pause_s = 0.0
        while self._take_in(line, pause_s):
            has_moved = self._give_turns(line)
            longer_s = max(pause_s * PAUSE_GROWTH, SHORTEST_PAUSE_S)
            pause_s = 0.0 if has_moved else min(longer_s, LONGEST_PAUSE_S)

    def _take_in(self, line: deque[TurnWork], pause_s: float) -> bool:
        """Takes new work into the line, waiting for some while nothing else can be done; False at the end."""
        try:
            work = self._new.get(timeout=pause_s if line else None)
            while work is not None:
                line.append(work)
                work = self._new.get_nowait()
        except queue.Empty:
            return True
        self._give_turns(line)
        return False

    @staticmethod
    def _give_turns(line: deque[TurnWork]) -> bool:
        """Whether any moved."""
        has_moved = False
        for _ in range(len(line)):
            work = line.popleft()
            turn = work.run_turn()
            has_moved |= turn is not Turn.WAITS
            if turn is not Turn.DONE:
                line.append(work)
        return has_moved
