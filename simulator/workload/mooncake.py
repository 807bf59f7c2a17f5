"""Mooncake's traces: JSON lines with hashes of the prompt's 512-token blocks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from simulator.workload.errors import check
from simulator.workload.lines import MOST_WHOLE, Order, open_text, read_json
from simulator.workload.request import Request

GRANULE_TOKENS = 512
_LEAST = {"timestamp": 0, "input_length": 1, "output_length": 1}


@dataclass(frozen=True, slots=True)
class _Entry:
    timestamp: int  # milliseconds
    input_length: int
    output_length: int
    hash_ids: tuple[int, ...]


def load(path: Path, max_tokens: int) -> list[Request]:
    """Text only. Seconds from the first line."""
    order = Order(1000)
    requests: list[Request] = []
    with open_text(path) as file:
        for line_number, line in enumerate(file, 1):
            place = f"{path}:{line_number}"
            entry = _entry(line, place)
            requests.append(
                Request(
                    request_id=f"r{line_number - 1}",
                    arrival_s=order.since_first(entry.timestamp, place),
                    text_tokens=entry.input_length,
                    output_tokens=min(entry.output_length, max_tokens),
                    max_tokens=max_tokens,
                    prefix=entry.hash_ids[: entry.input_length // GRANULE_TOKENS],
                    prefix_granule_tokens=GRANULE_TOKENS,
                )
            )
    return requests


def _entry(line: str, place: str) -> _Entry:
    found = read_json(line.strip(), place)
    check(isinstance(found, dict), place, "should be an object")
    assert isinstance(found, dict)
    missing = {*_LEAST, "hash_ids"} - found.keys()
    check(not missing, place, f"lacks {', '.join(sorted(missing))}")
    for key, least in _LEAST.items():
        value = found[key]
        is_fine = isinstance(value, int) and not isinstance(value, bool) and value >= least
        check(is_fine, place, f"{key} should be a whole number from {least}, is {value!r:.40}")
        most = f"{key} should be at most {MOST_WHOLE:,}, is {value!r:.40}"
        check(key == "timestamp" or value <= MOST_WHOLE, place, most)
    hashes = found["hash_ids"]
    is_list = isinstance(hashes, list) and all(isinstance(each, int) for each in hashes)
    check(is_list, place, "hash_ids should be a list of whole numbers")
    return _Entry(found["timestamp"], found["input_length"], found["output_length"], tuple(hashes))
