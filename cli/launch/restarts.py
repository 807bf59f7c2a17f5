"""Which stage servers that died are started again, and when."""

from __future__ import annotations

from collections import defaultdict

WINDOW_S = 600.0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 30.0


class Restarts:
    """Each at most `most` times within ten minutes, after 1, 2, 4, … 30 seconds. Times are of one clock."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._died_s: defaultdict[str, list[float]] = defaultdict(list)  # within the window
        self._due_s: dict[str, float] = {}

    def __bool__(self) -> bool:
        """Whether one is to be started."""
        return bool(self._due_s)

    def died(self, instance: str, now_s: float) -> float | None:
        """Seconds until it is to be started again; None: it is not."""
        recent = [each for each in self._died_s[instance] if now_s - each < WINDOW_S]
        self._died_s[instance] = [*recent, now_s]
        if len(recent) >= self.most:
            return None
        wait_s = min(_FIRST_WAIT_S * 2.0 ** len(recent), _LONGEST_WAIT_S)
        self._due_s[instance] = now_s + wait_s
        return wait_s

    def wait_s(self, now_s: float) -> float | None:
        """Until the next is due, at least 0; None: there is none."""
        return max(0.0, min(self._due_s.values()) - now_s) if self._due_s else None

    def take_due(self, now_s: float) -> list[str]:
        """Those whose time has come, each once."""
        due = [instance for instance, due_s in self._due_s.items() if due_s <= now_s]
        for instance in due:
            del self._due_s[instance]
        return due
