"""How fast the simulator is: events per second of one core, by policy set.

    python -m benchmarks.simulator [--rate 24] [--seconds 120] [--rounds 3] [--profile P]
        [--data FOLDER] [--json FILE]

Events are arrivals, starts and ends of stages (picture decoding on the host is one) and of transfers, and
steps; a decode run of an unchanged batch counts as one. Seconds are of the processor, the fastest of the
rounds. "round robin" is no policy: what the simulator itself takes. A second run with clocks around the
policies says which part of the time is theirs. What `python -m simulator.compiled` made is measured if there
is any, the sources with ELASTICMM_COMPILED=0 in the environment. With --data, the first 48 hours of the Azure
LMM trace are simulated as well, which takes many minutes.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from simulator import compiled

IS_COMPILED = compiled.use()  # before anything of it is imported

from coordinator.policy.books import Books
from coordinator.policy.decisions import DecisionRing
from coordinator.policy.plan import Plan
from coordinator.policy.scheduler import Scheduler, Slo
from coordinator.policy.sets import make_scheduler
from coordinator.policy.view import Placement
from coordinator.policy.work import Work
from core.costs import StepShape
from core.profile import Profile
from core.profile_file import load_profile, shipped_profiles
from core.stages import ModalityGroup
from simulator.cluster import Cluster
from simulator.config import ClusterConfig
from simulator.workload.mix import MixSpec, mix
from simulator.workload.request import Request
from simulator.workload.trace import TraceSpec, load

ROUND_ROBIN = "round robin"  # no policy: what the simulator itself takes
SETS = (ROUND_ROBIN, "coupled", "static:equal", "emp")
INSTANCES = 8
TARGET = 100_000.0
SLO = Slo(ttft_s=1.0, tpot_s=0.1)
AZURE = TraceSpec(
    "azure-lmm-minutes",
    "azure-lmm-2025/azure_lmm_2024_first48h_split_estimate.csv",
    quantiles="azure-lmm-2025/digitised_token_quantiles.csv",
    images="azure-lmm-2025/digitised_numimages_cdf.csv",
)


class RoundRobin:
    """Coupled instances in turn: as little policy as there can be."""

    tick_s = 0.25

    def __init__(self) -> None:
        self.decisions = DecisionRing()
        self._plan = Plan()
        self._next = 0

    def place(self, books: Books, now_s: float) -> Placement | None:
        work = books.first_waiting(ModalityGroup.TEXT) or books.first_waiting(ModalityGroup.MULTIMODAL)
        assert work is not None
        name = f"i{self._next}"
        self._next = (self._next + 1) % len(books.instances)
        return Placement(work.request_id, (name,) * len(work.media), name, name, now_s)

    def plan(self, books: Books, now_s: float) -> Plan:
        return self._plan

    def note_arrival(self, work: Work, now_s: float) -> None: ...

    def note_step(self, instance_id: str, shape: StepShape, seconds: float) -> None: ...

    def note_encode(self, instance_id: str, num_tokens: int, seconds: float) -> None: ...

    def note_first_token(self, work: Work, ttft_s: float) -> None: ...

    def note_finished(self, work: Work, tpot_s: float) -> None: ...


def scheduler(policy_set: str, profile: Profile) -> Scheduler:
    return RoundRobin() if policy_set == ROUND_ROBIN else make_scheduler(policy_set, profile, SLO)


class PolicyClock:
    """A scheduler with a clock around every call."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.tick_s: float = inner.tick_s
        self.decisions = inner.decisions
        self.seconds = 0.0
        for name in dir(inner):
            if name in ("place", "plan") or name.startswith("note_"):
                setattr(self, name, self._timed(getattr(inner, name)))

    def _timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            start_s = time.perf_counter()
            try:
                return call(*arguments)
            finally:
                self.seconds += time.perf_counter() - start_s

        return timed


def measure(policy_set: str, profile: Profile, requests: Sequence[Request], rounds: int) -> dict[str, Any]:
    """Of the fastest round."""
    seconds, events, simulated_s = float("inf"), 0, 0.0
    for _ in range(rounds):
        cluster = Cluster(ClusterConfig(INSTANCES, profile), scheduler(policy_set, profile), requests)
        start_s = time.process_time()
        result = cluster.run()
        seconds = min(seconds, time.process_time() - start_s)
        events, simulated_s = result.num_events, result.duration_s
    return {
        "policy_set": policy_set,
        "requests": len(requests),
        "events": events,
        "simulated_s": simulated_s,
        "cpu_s": seconds,
        "events_per_s": events / seconds,
        "policy_share": policy_share(policy_set, profile, requests[:2000]),
    }


def policy_share(policy_set: str, profile: Profile, requests: Sequence[Request]) -> float:
    clock: Any = PolicyClock(scheduler(policy_set, profile))
    start_s = time.perf_counter()
    Cluster(ClusterConfig(INSTANCES, profile), clock, requests).run()
    share: float = clock.seconds / (time.perf_counter() - start_s)
    return share


def first_profile() -> Profile:
    return next(each for name in shipped_profiles() if not (each := load_profile(name)).is_simulation_only)


def table(rows: Sequence[dict[str, Any]]) -> Table:
    shown = Table(box=box.SIMPLE, pad_edge=False)
    shown.add_column("workload")
    shown.add_column("set")
    for header in ("requests", "events", "simulated", "CPU s", "events/s", "in policies"):
        shown.add_column(header, justify="right")
    for row in rows:
        shown.add_row(
            row["workload"],
            row["policy_set"],
            f"{row['requests']:,}",
            f"{row['events']:,}",
            f"{row['simulated_s']:,.0f} s",
            f"{row['cpu_s']:.2f}",
            f"{row['events_per_s']:,.0f}",
            f"{row['policy_share']:.0%}",
        )
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", type=float, default=24.0)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", help="default: the first shipped one whose model is served for real")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    profile = load_profile(options.profile) if options.profile else first_profile()
    requests = mix(MixSpec(duration_s=options.seconds), options.rate, 1)
    name = f"mix, {options.rate:g}/s"
    rows = [{"workload": name} | measure(each, profile, requests, options.rounds) for each in SETS]
    if options.data is not None:
        trace = load(AZURE, options.data, 1)
        rows += [{"workload": "Azure LMM, 48 h"} | measure(each, profile, trace, 1) for each in SETS]
    Console(highlight=False).print(table(rows))
    print(f"{'compiled' if IS_COMPILED else 'sources'}; to reach: {TARGET:,.0f} events/s")
    if options.json:
        report = {"compiled": IS_COMPILED, "rows": rows}
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
