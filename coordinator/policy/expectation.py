"""How long answers will be: what has been seen of late says it."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque


class OutputExpectation:
    """The 80th percentile of recent answers' lengths; `default_tokens` until some are known."""

    def __init__(self, default_tokens: int, window: int = 256, share: float = 0.8) -> None:
        self._default_tokens = default_tokens
        self._recent: deque[int] = deque()
        self._ranked: list[int] = []  # the same, sorted
        self._window = window
        self._share = share
        self._expected = default_tokens

    def record(self, num_tokens: int) -> None:
        self._recent.append(num_tokens)
        insort(self._ranked, num_tokens)
        if len(self._recent) > self._window:
            del self._ranked[bisect_left(self._ranked, self._recent.popleft())]
        if len(self._recent) >= 8:
            self._expected = max(1, self._ranked[int(self._share * (len(self._ranked) - 1))])

    def expected_tokens(self, max_tokens: int) -> int:
        """Output tokens to reserve for, at least 1 and at most `max_tokens`."""
        return min(max_tokens, self._expected)
