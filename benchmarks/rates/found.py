"""Best rates as the runs of a search have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.load.report import flatten
from benchmarks.rates.book import LIVE, SIMULATED, Book, Run
from benchmarks.rates.search import bracket


@dataclass(frozen=True, slots=True)
class Best:
    """The highest rate found to attain enough; `is_least`: the next one was not run, it may be higher."""

    rate_rps: float
    is_least: bool
    figures: Mapping[str, Any]

    @property
    def words(self) -> str:
        return f"{self.rate_rps:.1f}{' or more' if self.is_least else ''}"


def is_enough(runs: Mapping[int, Run], attainment: float) -> dict[int, bool]:
    """By place."""
    return {place: each.attained >= attainment for place, each in runs.items()}


def best_of(runs: Mapping[int, Run], attainment: float, count: int) -> Best | None:
    """None where no run attained enough."""
    low, high = bracket(is_enough(runs, attainment), count)
    if low < 0:
        return None
    return Best(runs[low].rate_rps, high - low > 1 or high == count, runs[low].figures)


def best_rates(book: Book, attainment: float, count: int) -> list[dict[str, Any]]:
    """A record per search."""
    found = []
    for search in book.searches():
        live, simulated = (best_of(book.of(search, side), attainment, count) for side in (LIVE, SIMULATED))
        found.append(
            {
                "case": search.case,
                "seed": search.seed,
                "set": search.policy_set,
                LIVE: None if live is None else live.rate_rps,
                SIMULATED: None if simulated is None else simulated.rate_rps,
                "is_least": live is not None and live.is_least,
                "figures": None if live is None else live.figures,
            }
        )
    return found


def ratio(found: Sequence[Mapping[str, Any]], side: str, case: str, better: str, worse: str) -> float | None:
    """Of mean best rates over the seeds that both sets have; None where there are none."""
    rates = {(each["set"], each["seed"]): each[side] for each in found if each["case"] == case and each[side]}
    seeds = [seed for name, seed in rates if name == better and (worse, seed) in rates]
    if not seeds:
        return None
    totals = [sum(float(rates[name, seed]) for seed in seeds) for name in (better, worse)]
    return totals[0] / totals[1]


def mean_figures(
    found: Sequence[Mapping[str, Any]], case: str, policy_set: str
) -> tuple[int, dict[str, float]]:
    """Number of seeds with a live best rate, and means over them of what all of them have."""
    flats = [
        flatten(each["figures"]) | {"rate_rps": each[LIVE]}
        for each in found
        if (each["case"], each["set"]) == (case, policy_set) and each[LIVE]
    ]
    keys = [key for key in flats[0] if all(key in flat for flat in flats)] if flats else []
    return len(flats), {key: sum(flat[key] for flat in flats) / len(flats) for key in keys}
