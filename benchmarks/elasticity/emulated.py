"""Devices that take a profile's time, so many times slower where one machine has to play many of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from benchmarks.elasticity.pace import Pace
from cli.launch.plan import LaunchPlan
from core.costs import MoveCosts
from core.profile import Profile
from core.profile_file import load_profile, write_profile


def with_emulated(plan: LaunchPlan, profile: str, time_scale: float, folder: Path) -> LaunchPlan:
    """Devices of the profile with a clock slowed so, by which slices of encoding are cut; policies reckon in
    real seconds, by a slowed profile in `folder`. Raises ProfileError.
    """
    path = folder / "profile.json"
    write_profile(slowed(load_profile(profile), time_scale), path)
    return replace(plan, devices=(f"emulated:{profile}",), profile=str(path), time_scale=time_scale)


def slowed(profile: Profile, by: float) -> Profile:
    """Of a device on which everything takes `by` times as long."""
    return replace(
        Pace(by, by, by).of(profile),
        kv_move=_slowed_move(profile.kv_move, by),
        embedding_move=_slowed_move(profile.embedding_move, by),
    )


def _slowed_move(costs: MoveCosts, by: float) -> MoveCosts:
    return MoveCosts(costs.setup_s * by, costs.bytes_per_s / by)
