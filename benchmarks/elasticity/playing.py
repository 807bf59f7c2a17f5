"""One trace on one live cluster: started for it, warmed up, played, asked what it did, and ended."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from typing import Any

import psutil

from benchmarks.elasticity.pace import Pace, pace_between
from benchmarks.elasticity.trace import planned
from benchmarks.load.driver import DriveSpec, drive
from benchmarks.load.setups import Setup, running
from cli.launch.plan import LaunchPlan
from cli.load.outcomes import Outcome
from cli.load.texts import TextMaker
from cli.load.workload import PlannedRequest
from core.encode_order import EncodeOrder
from core.prompt_order import Encoding, PromptOrder
from elasticmm_client import AdminClient
from elasticmm_client.plan import ClusterPlan, Decision
from simulator.workload.request import Request

BASELINES = ("coupled", "replicas")
HOST_ROWS = (  # of a table: whether devices and host kept up
    ("decodes: times the profile's s", "pace.decodes"),
    ("prefills: times the profile's s", "pace.prefills"),
    ("encodes: times the profile's s", "pace.encodes"),
    ("cores: coordinator", "cores_busy.coordinator"),
    ("cores: instances", "cores_busy.instances"),
    ("cores: load", "cores_busy.load"),
)
_SETTLE_S = 20.0
_EMULATED = "emulated:"
_FIRST = 1  # the lowest of real-time priorities


@dataclass(frozen=True, slots=True)
class Played:
    """What one run came to; outcomes are in seconds of the trace, whatever the time scale."""

    policy: str
    warm_up: tuple[Outcome, ...]  # of a few requests before, one at a time
    warm_up_pace: Pace
    outcomes: tuple[Outcome, ...]
    pace: Pace
    plan: ClusterPlan
    decisions: tuple[Decision, ...]
    num_switches: int  # while the trace was played
    cpu_s: dict[str, float]  # by "coordinator", "instances", "load", over `wall_s`
    wall_s: float
    instances_first: bool  # emulated instances compute before all else, as if each had cores of its own


@dataclass(frozen=True, slots=True)
class Actors:
    """The policy set that plays, and how its engines encode and cache."""

    name: str
    policy: str
    prompt_order: PromptOrder = "text-first"
    encode_order: EncodeOrder = "shortest"
    encoding: Encoding = "pipelined"
    prefix_cache: bool = True

    def settings(self) -> dict[str, Any]:
        """Of LaunchPlan."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name != "name"}


def actors_of(policy: str) -> Actors:
    """Baselines serve first come, first served, as servers in the field do."""
    if policy in BASELINES:
        return Actors(policy, policy, "arrival", "arrival")
    return Actors(policy, policy)


@dataclass(frozen=True, slots=True)
class WarmUp:
    """Lone requests before the clock runs."""

    per_kind: int = 7
    gap_s: float = 1.0  # in seconds of the trace


_LONG_WARM_UP = WarmUp()


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a trace is played: what all policy sets have in common."""

    plan: LaunchPlan
    topology: str
    num_instances: int
    profile: str | None = None  # of the devices at their own speed, a name or a file; None: none was measured
    time_scale: float = 1.0  # the trace and the devices are so many times slower

    @property
    def is_emulated(self) -> bool:
        return any(device.startswith(_EMULATED) for device in self.plan.devices)


def play(
    stage: Stage, actors: Actors, trace: Sequence[Request], seed: int, warm_up: WarmUp = _LONG_WARM_UP
) -> Played:
    """Caches are empty when the clock starts. Raises LaunchError if the cluster does not start."""
    texts = TextMaker(stage.plan.model)
    requests = planned(trace, texts, seed, stage.time_scale)
    lone = [
        replace(each, at_s=at * warm_up.gap_s * stage.time_scale)
        for at, each in enumerate(_some_of_each_kind(requests, warm_up.per_kind))
    ]
    settings = actors.settings() | {"num_instances": stage.num_instances}
    setup = Setup(actors.name, stage.topology, tuple(settings.items()))
    with (
        running(setup, stage.plan) as endpoint,
        AdminClient(endpoint.address, endpoint.token) as admin,
    ):
        spec = DriveSpec(endpoint.address, concurrency=len(requests))
        _settle(admin)
        instances_first = stage.is_emulated and _put_first()
        fresh = admin.plan()
        warm = drive(spec, lone, lambda _: None)
        admin.flush_cache(reason="what the warm-up left")
        before = admin.plan()
        with _cpu_times() as cpu_s:
            start_s = time.monotonic()
            outcomes = drive(spec, requests, lambda _: None)
            wall_s = time.monotonic() - start_s
        after = admin.plan()
        decisions = admin.why()
    return Played(
        policy=actors.policy,
        warm_up=tuple(each.sped_up(stage.time_scale) for each in warm),
        warm_up_pace=pace_between(fresh, before),
        outcomes=tuple(each.sped_up(stage.time_scale) for each in outcomes),
        pace=pace_between(before, after),
        plan=after,
        decisions=decisions,
        num_switches=after.transitions_done - before.transitions_done,
        cpu_s=cpu_s,
        wall_s=wall_s,
        instances_first=instances_first,
    )


def _some_of_each_kind(requests: Sequence[PlannedRequest], per_kind: int) -> list[PlannedRequest]:
    kinds = sorted({each.kind for each in requests})
    return [each for kind in kinds for each in [r for r in requests if r.kind == kind][:per_kind]]


def _settle(admin: AdminClient) -> None:
    """Until the first plan is carried out."""
    end_s = time.monotonic() + _SETTLE_S
    while time.monotonic() < end_s:
        plan = admin.plan()
        if all(each.state == "serving" and each.wanted in (None, each.present) for each in plan.instances):
            return
        time.sleep(0.1)
    raise RuntimeError(f"the plan is not carried out: {plan}")


@contextmanager
def _cpu_times() -> Iterator[dict[str, float]]:
    """Fills in the processor seconds of the coordinator (gateway included), the instances, and the load."""
    before, load_s = _cpu_by_process(), _load_s()
    spent = {"load": 0.0}
    yield spent
    spent["load"] = _load_s() - load_s
    for (pid, kind), seconds in _cpu_by_process().items():
        spent[kind] = spent.get(kind, 0.0) + seconds - before.get((pid, kind), 0.0)


def _load_s() -> float:
    """Of the processes that sent requests: children of this one that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _cpu_by_process() -> dict[tuple[int, str], float]:
    found: dict[tuple[int, str], float] = {}
    for process, kind in _processes():
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            found[process.pid, kind] = times.user + times.system
    return found


def _processes() -> Iterator[tuple[psutil.Process, str]]:
    """All of the cluster, each "coordinator" (its gateway, too) or "instances"."""
    for process in psutil.Process(os.getpid()).children(recursive=True):
        try:
            command = " ".join(process.cmdline())
        except psutil.NoSuchProcess:
            continue
        is_control = "coordinator" in command or "gateway" in command
        yield process, "coordinator" if is_control else "instances"


def _put_first() -> bool:
    """Gives the instances' threads, and those they start, the processor before others; whether that may be.

    A few cores play the hosts of many devices here: what else runs on them would stop an emulated device
    between two steps, as nothing stops one whose host has cores of its own.
    """
    instances = [process for process, kind in _processes() if kind == "instances"]
    for thread in [thread for process in instances for thread in process.threads()]:
        try:
            os.sched_setscheduler(thread.id, os.SCHED_RR, os.sched_param(_FIRST))
        except ProcessLookupError:
            continue  # it has ended
        except PermissionError:
            return False
    return True
