"""The engine of servers whose requests wait for each other's pictures."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile

from simulator.instance import Instance
from simulator.job import Job


class InlineInstance(Instance):
    """Pictures are decoded between steps, and encoded in order of arrival before a step; prompts wait in one
    line: none passes one before it whose embeddings are not all there.
    """

    def _line(self) -> Iterable[Job]:
        return takewhile(lambda job: job.num_ready > 0, self.prefills)
