"""The cluster's index at full size: how fast, how large, and a plain dict beside it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from coordinator.cache.index import ClusterIndex

BATCH = 512
CHAIN = 2048  # granules of a prompt of 32k tokens
SHARED = 128  # of those, that are on every instance in the shared case
_LOOKED_UP = 300
_CHURN = 200
_UNKNOWN = 1 << 30  # seeds of what nobody has
_PAGE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class IndexFigures:
    num_keys: int
    num_instances: int
    bytes_per_key: float  # of the table
    resident_bytes_per_key: float  # by which the process grew
    stored_per_s: float  # while it fills, in room that was reserved
    replaced_per_s: float  # stored and evicted keys, full
    one_holder_ms: float
    one_holder_p99_ms: float
    shared_prefix_ms: float
    unknown_ms: float
    embedding_us: float
    detach_us: float
    tidy_step_ms: float
    tidy_steps: int


@dataclass(frozen=True, slots=True)
class DictFigures:
    """Of a dict from digests to a number."""

    num_keys: int
    resident_bytes_per_key: float
    stored_per_s: float
    one_holder_ms: float


def digests(seed: int, count: int) -> list[bytes]:
    data = np.random.default_rng(seed).bytes(32 * count)
    return [data[at : at + 32] for at in range(0, len(data), 32)]


def measure_index(num_keys: int, num_instances: int) -> IndexFigures:
    """Every instance has keys of its own, and all have one prefix in common."""
    each = num_keys // num_instances
    resident = _resident_bytes()
    index = ClusterIndex()
    index.reserve(num_keys + SHARED)
    stored_s = 0.0
    for number in range(num_instances):
        index.attach(_name(number), 1)
        keys = digests(number, each)
        stored_s += _timed(partial(_report, index, _name(number), keys))
    bytes_per_key = index.size_bytes / len(index)
    resident_per_key = (_resident_bytes() - resident) / len(index)
    shared = digests(num_instances, SHARED)
    for number in range(num_instances):
        index.update(_name(number), 1, shared)

    length = min(CHAIN, each)
    one = _chains(each, num_instances, length)
    one_ms = _looked_up(index, one, {length})
    shared_ms = _looked_up(index, [shared + chain[SHARED:] for chain in one], {SHARED, length})
    unknown_ms = _looked_up(index, [digests(_UNKNOWN + at, CHAIN) for at in range(_LOOKED_UP)], set())
    embedding_us = statistics.median(_timed(partial(index.holders, chain[0])) for chain in one) * 1e6
    replaced_per_s = _churn(index, num_instances, each)
    detach_us = _timed(partial(index.detach, _name(0))) * 1e6
    steps = []
    while not index.is_tidy:
        steps.append(_timed(index.tidy))
    return IndexFigures(
        num_keys=len(index),
        num_instances=num_instances,
        bytes_per_key=bytes_per_key,
        resident_bytes_per_key=resident_per_key,
        stored_per_s=each * num_instances / stored_s,
        replaced_per_s=replaced_per_s,
        one_holder_ms=statistics.median(one_ms),
        one_holder_p99_ms=sorted(one_ms)[int(0.99 * len(one_ms))],
        shared_prefix_ms=statistics.median(shared_ms),
        unknown_ms=statistics.median(unknown_ms),
        embedding_us=embedding_us,
        detach_us=detach_us,
        tidy_step_ms=statistics.median(steps) * 1e3,
        tidy_steps=len(steps),
    )


def measure_dict(num_keys: int, num_instances: int) -> DictFigures:
    each = num_keys // num_instances
    resident = _resident_bytes()
    table: dict[bytes, int] = {}
    stored_s = 0.0
    for number in range(num_instances):
        keys = digests(number, each)
        stored_s += _timed(partial(_put, table, keys, number))
    resident_per_key = (_resident_bytes() - resident) / len(table)
    chains = _chains(each, num_instances, min(CHAIN, each))
    found_s = [_timed(partial(_get, table, chain)) for chain in chains]
    return DictFigures(
        len(table), resident_per_key, each * num_instances / stored_s, statistics.median(found_s) * 1e3
    )


def _name(number: int) -> str:
    return f"i{number}"


def _chains(each: int, num_instances: int, length: int) -> list[list[bytes]]:
    """Of instances at random: made anew, so that nothing of them is in a cache of the processor."""
    numbers = np.random.default_rng(0).integers(num_instances, size=_LOOKED_UP)
    return [digests(int(number), each)[:length] for number in numbers]


def _report(index: ClusterIndex, name: str, keys: Sequence[bytes]) -> None:
    for at in range(0, len(keys), BATCH):
        index.update(name, 1, keys[at : at + BATCH])


def _put(table: dict[bytes, int], keys: Sequence[bytes], value: int) -> None:
    for key in keys:
        table[key] = value


def _get(table: dict[bytes, int], keys: Sequence[bytes]) -> list[int | None]:
    return [table.get(key) for key in keys]


def _churn(index: ClusterIndex, num_instances: int, each: int) -> float:
    """Batches of as many evicted as stored keys, of one instance after the other."""
    seconds, num_keys = 0.0, 0
    for number in range(min(_CHURN, num_instances)):
        gone, new = digests(number, each)[-BATCH:], digests(num_instances + 1 + number, BATCH)
        seconds += _timed(partial(index.update, _name(number), 1, new, gone))
        num_keys += len(gone) + len(new)
    return num_keys / seconds


def _looked_up(index: ClusterIndex, chains: Sequence[list[bytes]], lengths: set[int]) -> list[float]:
    """Milliseconds each; checks the lengths of prefixes that are found."""
    found_ms = []
    for chain in chains:
        start_s = time.perf_counter()
        found = index.prefixes(chain)
        found_ms.append((time.perf_counter() - start_s) * 1e3)
        if set(found.values()) != lengths:
            raise AssertionError(f"prefixes of {sorted(set(found.values()))}, should be {sorted(lengths)}")
    return found_ms


def _timed(call: Callable[[], object]) -> float:
    start_s = time.perf_counter()
    call()
    return time.perf_counter() - start_s


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES
