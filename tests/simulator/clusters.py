"""Clusters to test with, and requests for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from coordinator.policy.scheduler import Slo
from coordinator.policy.sets import make_scheduler
from coordinator.policy.view import Placement
from core.profile import Profile
from simulator.cluster import Cluster
from simulator.config import ClusterConfig
from simulator.result import RunResult
from simulator.unified import UnifiedCache
from simulator.workload.request import Picture, Request
from tests.simulator.profiles import ROUND
from tests.simulator.schedulers import PlanScheduler, SaidScheduler

Plans = Sequence[tuple[float, Mapping[str, str]]]


def text(name: str, arrival_s: float = 0.0, tokens: int = 100, outputs: int = 3, **more: Any) -> Request:
    return Request(name, arrival_s, tokens, outputs, max_tokens=outputs, **more)


def picture(
    name: str,
    arrival_s: float = 0.0,
    tokens: int = 200,
    outputs: int = 3,
    text_tokens: int = 100,
    **more: Any,
) -> Request:
    item = Picture(100, 100, tokens, more.pop("digest", None))
    return Request(name, arrival_s, text_tokens, outputs, outputs, (item,), "picture", **more)


def cluster(
    requests: Sequence[Request], plans: Plans = (), instances: int = 1, **config: Any
) -> tuple[Cluster, PlanScheduler]:
    """With no control delay and no picture decoding unless asked for.

    `said`: where requests go; else the least loaded instances are taken.
    """
    profile: Profile = config.pop("profile", ROUND)
    if not config.pop("host_time", False):
        profile = replace(profile, encode=replace(profile.encode, per_pixel_s=0.0))
    said: Mapping[str, Placement] | None = config.pop("said", None)
    scheduler = PlanScheduler(*plans) if said is None else SaidScheduler(said, *plans)
    caches = UnifiedCache(profile) if config.pop("unified", False) else None
    config = {"control_s": 0.0, **config}
    return Cluster(ClusterConfig(instances, profile, **config), scheduler, requests, caches), scheduler


def run_aware(
    policy: str, requests: Sequence[Request], instances: int = 1, profile: Profile = ROUND, **config: Any
) -> RunResult:
    """Under the coordinator's policies, which know what the unified cache holds."""
    caches = UnifiedCache(profile)
    scheduler = make_scheduler(policy, profile, Slo(1.0, 0.5), warmth=caches)
    simulated = Cluster(ClusterConfig(instances, profile, **config), scheduler, requests, caches)
    result = simulated.run()
    simulated.check_idle()
    return result


def run(requests: Sequence[Request], plans: Plans = (), instances: int = 1, **config: Any) -> RunResult:
    """To the end, with a check that nothing is left."""
    simulated, _ = cluster(requests, plans, instances, **config)
    result = simulated.run()
    simulated.check_idle()
    return result
