"""Lines of trace files, with names for what is wrong in them."""

from __future__ import annotations

import csv
import gzip
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from simulator.workload.errors import WorkloadError, check

MOST_WHOLE = 100_000_000  # of tokens, pictures or requests: more is a slip of units
_STAMP = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d(?::\d\d)?)(?:\.(\d{1,9}))?(?:Z|\+00:00)?")


@contextmanager
def open_text(path: Path) -> Iterator[IO[str]]:
    """Also of a file that ends in .gz. Raises WorkloadError where it cannot be opened or read to its end."""
    try:
        with _opened(path) as file:
            yield file
    except UnicodeDecodeError:
        raise WorkloadError(f"{path}: is not UTF-8 text") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise WorkloadError(f"{path}: is no whole gzip file ({error})") from None
    except OSError as error:
        raise WorkloadError(f"{path}: cannot be read ({error.strerror})") from None


def _opened(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")


def read_rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Rows of a CSV file, each with its place "file:line"."""
    with open_text(path) as file:
        rows = csv.reader(file)
        try:
            for row in rows:
                yield f"{path}:{rows.line_num}", row
        except csv.Error as error:
            raise WorkloadError(f"{path}:{rows.line_num}: is no CSV ({error})") from None


def read_table(path: Path, header: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Rows under exactly this header, as `read_rows`."""
    rows = read_rows(path)
    place, found = next(rows, (f"{path}:1", []))
    check(
        [name.lstrip("\ufeff") for name in found] == list(header),
        place,
        f"the header should be {','.join(header)}, is {','.join(found)!r:.80}",
    )
    for place, row in rows:
        check(len(row) == len(header), place, f"should have {len(header)} columns, has {len(row)}")
        yield place, row


def read_json(text: str, place: str) -> object:
    """Raises WorkloadError naming the place."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise WorkloadError(f"{place}: is no JSON ({error.msg}, {where}column {error.colno})") from None
    except (RecursionError, ValueError):  # ValueError: a number of thousands of digits
        raise WorkloadError(
            f"{place}: is no JSON that can be taken in (too deep, or a number too long)"
        ) from None


def whole(text: str, place: str, name: str, least: int = 0) -> int:
    """Up to MOST_WHOLE."""
    try:
        number = int(text)
    except ValueError:
        raise WorkloadError(f"{place}: {name} should be a whole number, is {text!r:.40}") from None
    check(number >= least, place, f"{name} should be at least {least}, is {number}")
    check(number <= MOST_WHOLE, place, f"{name} should be at most {MOST_WHOLE:,}, is {text:.40}")
    return number


def number(text: str, place: str, name: str) -> float:
    """Finite and not negative."""
    try:
        value = float(text)
    except ValueError:
        raise WorkloadError(f"{place}: {name} should be a number, is {text!r:.40}") from None
    check(0 <= value < float("inf"), place, f"{name} should be a finite number from zero, is {text}")
    return value


def stamp_ns(text: str, place: str, name: str) -> int:
    """Nanoseconds since 1970 of an ISO time in UTC."""
    match = _STAMP.fullmatch(text.strip())
    check(
        match is not None,
        place,
        f"{name} should be a time such as 2024-10-15 12:00:00.2690000, is {text!r:.40}",
    )
    assert match is not None
    day, clock, fraction = match.groups()
    try:
        moment = datetime.fromisoformat(f"{day} {clock}").replace(tzinfo=UTC)
    except ValueError:
        raise WorkloadError(f"{place}: {name} is no time of a calendar: {text!r:.40}") from None
    return int(moment.timestamp()) * 10**9 + int((fraction or "").ljust(9, "0"))


class Order:
    """Stamps must not run backwards; gives seconds since the first."""

    def __init__(self, per_s: int) -> None:
        self._per_s = per_s  # of the stamps' unit
        self._first: int | None = None
        self._last = 0

    def since_first(self, stamp: int, place: str) -> float:
        if self._first is None:
            self._first = self._last = stamp
        check(stamp >= self._last, place, "the time is before the line above")
        self._last = stamp
        return (stamp - self._first) / self._per_s
