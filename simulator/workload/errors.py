"""What is wrong with a workload."""

from __future__ import annotations


class WorkloadError(ValueError):
    """A workload that cannot be made; the message names the key, or the file and the line."""


def check(is_fine: bool, place: str, problem: str) -> None:
    """Raises WorkloadError unless fine; `place` is a key, or a file with its line."""
    if not is_fine:
        raise WorkloadError(f"{place}: {problem}")
