"""What a search in hindsight gave, and how it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Tried:
    """A schedule, what it attained at the rate that it was found at, and the highest rate that it bears."""

    phases: tuple[tuple[float, str], ...]  # from when, and which form
    rate_rps: float
    attained: float
    best_rps: float


@dataclass(frozen=True, slots=True)
class Row:
    """One search; `beside_rps` are the best rates of sets."""

    seed: int
    from_rps: float  # where the search began
    beside_rps: dict[str, float]
    constant: Tried
    schedule: Tried
    num_runs: int

    @property
    def best_rps(self) -> float:
        return max(self.constant.best_rps, self.schedule.best_rps)

    def share(self, name: str) -> float | None:
        """Of the best rate in hindsight; None where there is none or no such set."""
        beside = self.beside_rps.get(name)
        return beside / self.best_rps if beside is not None and self.best_rps else None


def table(rows: Sequence[Row]) -> Table:
    shown = Table(box=box.SIMPLE, pad_edge=False)
    names = list(rows[0].beside_rps)
    for header in ("seed", "from", *names, "best constant", "best schedule", "emp/best"):
        shown.add_column(header, justify="right")
    for row in rows:
        share = row.share("emp")
        shown.add_row(
            str(row.seed),
            f"{row.from_rps:.1f}",
            *(f"{row.beside_rps[name]:.2f}" for name in names),
            f"{row.constant.best_rps:.2f}",
            f"{row.schedule.best_rps:.2f}",
            "" if share is None else f"{share:.3f}",
        )
    return shown


def described(row: Row) -> str:
    lines = [f"seed {row.seed} from {row.from_rps:.1f} requests/s, {row.num_runs} runs"]
    for name, tried in (("constant", row.constant), ("schedule", row.schedule)):
        lines.append(
            f"  {name}: {tried.attained:.1%} at {tried.rate_rps:.2f}/s, bears {tried.best_rps:.2f}/s"
        )
        forms = tried.phases if name == "schedule" else tried.phases[:1]
        lines += [f"    from {start_s:.0f} s {form}" for start_s, form in forms]
    return "\n".join(lines)
