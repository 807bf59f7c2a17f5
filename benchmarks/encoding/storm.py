"""The same load with and without other requests in between: text under a storm of pictures, small pictures
behind large ones.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from statistics import median

from benchmarks.elasticity.trace import IMAGE, TEXT, planned
from benchmarks.load.driver import DriveSpec, drive
from benchmarks.load.setups import Setup, running
from cli.endpoint import Endpoint
from cli.launch.plan import LaunchPlan
from cli.load.outcomes import Outcome, quantiles
from cli.load.texts import TextMaker
from cli.load.workload import PlannedRequest
from elasticmm_client import AdminClient
from simulator.workload.request import Picture, Request

OURS, ARRIVAL = "shortest", "arrival"
_OUTPUTS = 8
_WARM_UP_S = 1.0


@dataclass(frozen=True, slots=True)
class Stream:
    """Poisson arrivals of one kind of request."""

    rate: float  # per second
    text_tokens: int
    picture_px: tuple[int, int] | None = None  # None: text only


@dataclass(frozen=True, slots=True)
class Case:
    """`probe` is what is measured, `storm` what comes in between."""

    name: str
    topology: str
    num_instances: int | None
    probe: Stream
    storm: Stream
    duration_s: float
    groups: tuple[str, ...] = ()  # that instances are pinned to, in order


@dataclass(frozen=True, slots=True)
class Calm:
    """90th percentiles of the probe's time to first token by round, seconds, without and with the storm."""

    case: str
    encode_order: str
    without_s: tuple[float, ...]
    with_s: tuple[float, ...]
    storm_p50_s: float  # of what came in between

    @property
    def ratio(self) -> float:
        """Median over rounds."""
        return median(b / a for a, b in zip(self.without_s, self.with_s, strict=True))


def measure(case: Case, plan: LaunchPlan, rounds: int, seed: int) -> list[Calm]:
    """Alternates: without and with the storm, and between two clusters that differ in the encode order.

    Raises RuntimeError if a request fails.
    """
    texts = TextMaker(plan.model)
    orders = (OURS, ARRIVAL) if case.storm.picture_px and case.probe.picture_px else (OURS,)
    found: dict[str, list[tuple[float, float, float]]] = {order: [] for order in orders}
    with ExitStack() as stack:
        endpoints = {order: stack.enter_context(_cluster(case, plan, order)) for order in orders}
        for number in range(rounds + 1):
            for order, endpoint in endpoints.items():
                spec = replace(case, duration_s=_WARM_UP_S) if number == 0 else case
                figures = _one_round(spec, endpoint, texts, seed + number)
                if number:
                    found[order].append(figures)
    return [
        Calm(
            case.name,
            order,
            tuple(each[0] for each in rounds_of),
            tuple(each[1] for each in rounds_of),
            median(each[2] for each in rounds_of),
        )
        for order, rounds_of in found.items()
    ]


@contextmanager
def _cluster(case: Case, plan: LaunchPlan, order: str) -> Iterator[Endpoint]:
    setup = Setup(order, case.topology, (("num_instances", case.num_instances), ("encode_order", order)))
    with running(setup, plan) as endpoint:
        with AdminClient(endpoint.address, endpoint.token) as admin:
            names = sorted(instance.id for instance in admin.plan().instances)
            for name, group in zip(names, case.groups, strict=False):
                admin.pin(name, group=group)
        yield endpoint


def _one_round(case: Case, endpoint: Endpoint, texts: TextMaker, seed: int) -> tuple[float, float, float]:
    probe = _arrivals(case.probe, case.duration_s, seed, "probe")
    storm = _arrivals(case.storm, case.duration_s, seed + 1_000, "storm")
    both = sorted([*probe, *storm], key=lambda request: request.arrival_s)
    without = _play(endpoint, probe, texts, 2 * seed)
    with_storm = _play(endpoint, both, texts, 2 * seed + 1)
    is_probe = {index: request.request_id.startswith("probe") for index, request in enumerate(both)}
    return (
        _ttft_s(without, lambda _: True)["p90"],
        _ttft_s(with_storm, lambda index: is_probe[index])["p90"],
        _ttft_s(with_storm, lambda index: not is_probe[index])["p50"],
    )


def _play(endpoint: Endpoint, trace: Sequence[Request], texts: TextMaker, seed: int) -> list[Outcome]:
    requests: list[PlannedRequest] = planned(trace, texts, seed, 1.0)
    outcomes = drive(DriveSpec(endpoint.address, concurrency=len(requests)), requests, lambda _: None)
    errors = {outcome.error for outcome in outcomes if not outcome.is_ok}
    if errors:
        raise RuntimeError(f"requests failed: {', '.join(map(str, errors))}")
    return outcomes


def _ttft_s(outcomes: Sequence[Outcome], is_meant: Callable[[int], bool]) -> dict[str, float]:
    return quantiles(
        outcome.ttft_s for outcome in outcomes if outcome.ttft_s is not None and is_meant(outcome.index)
    )


def _arrivals(stream: Stream, duration_s: float, seed: int, name: str) -> list[Request]:
    rng = random.Random(seed)
    pictures = () if stream.picture_px is None else (Picture(*stream.picture_px),)
    found: list[Request] = []
    at_s = rng.expovariate(stream.rate)
    while at_s < duration_s or not found:
        found.append(
            Request(
                f"{name}-{len(found)}",
                at_s,
                stream.text_tokens,
                _OUTPUTS,
                _OUTPUTS,
                pictures,
                IMAGE if pictures else TEXT,
            )
        )
        at_s += rng.expovariate(stream.rate)
    return found
