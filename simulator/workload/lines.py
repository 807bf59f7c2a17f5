"""Lines of trace files, with names for what is wrong in them."""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from simulator.workload.errors import WorkloadError, check

_STAMP = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d(?::\d\d)?)(?:\.(\d{1,9}))?(?:Z|\+00:00)?")


def open_text(path: Path) -> IO[str]:
    """Also of a file that ends in .gz."""
    try:
        if path.suffix == ".gz":
            return gzip.open(path, "rt", encoding="utf-8", newline="")
        return path.open(encoding="utf-8", newline="")
    except OSError as error:
        raise WorkloadError(f"{path}: cannot be read ({error.strerror})") from None


def read_table(path: Path, header: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Rows of a CSV file under exactly this header, each with its place "file:line"."""
    with open_text(path) as file:
        rows = csv.reader(file)
        try:
            found = next(rows, [])
            check(
                [name.lstrip("\ufeff") for name in found] == list(header),
                f"{path}:1",
                f"the header should be {','.join(header)}, is {','.join(found)!r:.80}",
            )
            for row in rows:
                place = f"{path}:{rows.line_num}"
                check(len(row) == len(header), place, f"should have {len(header)} columns, has {len(row)}")
                yield place, row
        except (UnicodeDecodeError, csv.Error, EOFError, gzip.BadGzipFile) as error:
            raise WorkloadError(f"{path}: is no CSV file ({error})") from None


def whole(text: str, place: str, name: str, least: int = 0) -> int:
    try:
        number = int(text)
    except ValueError:
        raise WorkloadError(f"{place}: {name} should be a whole number, is {text!r:.40}") from None
    check(number >= least, place, f"{name} should be at least {least}, is {number}")
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
