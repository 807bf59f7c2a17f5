"""What was found so far, on disk after every run, so that a search that was cut short goes on from there."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

LIVE, SIMULATED = "live", "simulated"


@dataclass(frozen=True, slots=True)
class Search:
    """Whose best rate is looked for, and where."""

    case: str
    seed: int
    policy_set: str


@dataclass(frozen=True, slots=True)
class Run:
    """One trace at one rate; `place` is the rate's among all."""

    search: Search
    side: str
    place: int
    rate_rps: float
    attained: float
    figures: dict[str, Any]


@dataclass(slots=True)
class Book:
    """All runs. `about` says what they were runs of: a file of another kind is not gone on with."""

    about: dict[str, Any]
    runs: list[Run] = field(default_factory=list)

    def of(self, search: Search, side: str) -> dict[int, Run]:
        """By place."""
        return {each.place: each for each in self.runs if (each.search, each.side) == (search, side)}

    def searches(self) -> list[Search]:
        """In order of the first run of each."""
        return list(dict.fromkeys(each.search for each in self.runs))

    def write(self, path: Path, **more: Any) -> None:
        """Whole or not at all; a run per line."""
        part = path.with_name(path.name + ".part")
        runs = ",\n".join(json.dumps(asdict(each)) for each in self.runs)
        head = json.dumps({**more, "about": self.about}, indent=2).removesuffix("\n}")
        part.write_text(f'{head},\n  "runs": [\n{runs}\n]\n}}\n')
        os.replace(part, path)


def read_book(path: Path, about: Mapping[str, Any]) -> Book:
    """Raises ValueError naming the file: it is none, or of other traces, targets or devices."""
    try:
        table = json.loads(path.read_text())
        runs = [Run(**{**each, "search": Search(**each["search"])}) for each in table["runs"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"resume: {path} has no runs to go on with ({error})") from None
    there, here = table.get("about", {}), json.loads(json.dumps(about))
    differing = [key for key in here if there.get(key) != here[key]]
    if differing:
        raise ValueError(f"resume: {path} is of another {differing[0]}")
    return Book(dict(about), runs)
