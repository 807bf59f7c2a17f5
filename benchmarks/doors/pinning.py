"""Processes on cores of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator, Set
from contextlib import contextmanager

import psutil


@contextmanager
def started_on(cores: Set[int]) -> Iterator[None]:
    """What is started within runs on these cores, with all threads that it will have."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def split_cores() -> tuple[set[int], set[int]]:
    """One core for what is measured, the others for all else. Raises ValueError where there is only one."""
    first, *others = sorted(os.sched_getaffinity(0))
    if not others:
        raise ValueError("needs two cores at least")
    return {first}, set(others)


def cpu_s(pid: int) -> float:
    """Processor time that the process has used, all its threads."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)
