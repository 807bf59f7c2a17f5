"""Mooncake's traces: JSON lines with hashes of the prompt's 512-token blocks."""

from __future__ import annotations

from dataclasses import dataclass, replace
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
    """Text only. Seconds from the first line. What an answer fills is taken from the prompt after it."""
    order = Order(1000)
    requests: list[Request] = []
    entries: list[_Entry] = []
    with open_text(path) as file:
        for line_number, line in enumerate(file, 1):
            place = f"{path}:{line_number}"
            entry = _entry(line, place)
            entries.append(entry)
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
    made = _made(entries)
    return [replace(each, made=made.get(number, ())) for number, each in enumerate(requests)]


def _made(entries: list[_Entry]) -> dict[int, tuple[int, ...]]:
    """By place in the file, the hashes of the blocks that an answer filled.

    The next prompt that begins with all full blocks of another, and is at least as long as that and its
    answer, is taken to go on with it; not where that is one block, for all share the first.
    """
    made: dict[int, tuple[int, ...]] = {}
    open_at: dict[int, int] = {}  # entries that nothing was found to go on with, by their last full block
    for number, entry in enumerate(entries):
        for block in entry.hash_ids:
            before = open_at.get(block)
            if before is not None and _goes_on(entries[before], entry):
                made[before] = entry.hash_ids[_full(entries[before]) : _filled(entries[before])]
                del open_at[block]
        if _full(entry) > 1:
            open_at[entry.hash_ids[_full(entry) - 1]] = number
    return made


def _goes_on(before: _Entry, entry: _Entry) -> bool:
    full = _full(before)
    is_longer = entry.input_length >= before.input_length + before.output_length
    return is_longer and entry.hash_ids[:full] == before.hash_ids[:full]


def _full(entry: _Entry) -> int:
    return min(len(entry.hash_ids), entry.input_length // GRANULE_TOKENS)


def _filled(entry: _Entry) -> int:
    """Blocks that the prompt and its answer fill."""
    return (entry.input_length + entry.output_length) // GRANULE_TOKENS


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
