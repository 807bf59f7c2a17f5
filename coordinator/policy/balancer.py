"""How many instances each group has, ahead of time: by burst tolerance."""

from __future__ import annotations

from collections.abc import Mapping

from coordinator.policy.plan import GROUPS
from core.stages import ModalityGroup

_FEW = 8


def burst_tolerance(allocated: int, demand: float) -> float:
    """How many times its demand a group could take, were its instances used in full."""
    if demand <= 0:
        return float("inf")
    return allocated / demand


def balanced(
    num_instances: int, demand: Mapping[ModalityGroup, float], floors: Mapping[ModalityGroup, int]
) -> dict[ModalityGroup, int]:
    """Shares out the instances, one at a time to the group of lowest burst tolerance above the floors.

    `demand` is in instances. Greedy gives the largest minimum there is: the group that holds the minimum
    back is always the one that is given to. Raises ValueError if the floors need more than there are.
    """
    shares = {group: floors.get(group, 0) for group in GROUPS}
    if sum(shares.values()) > num_instances:
        raise ValueError(f"floors: {sum(shares.values())} instances for {num_instances}")
    total = sum(demand.get(group, 0.0) for group in GROUPS)
    if total > 0 and num_instances > _FEW:
        # What every group gets in any case, at once: the last few decide.
        sure = {group: int((num_instances - _FEW) * demand.get(group, 0.0) / total) for group in GROUPS}
        most = num_instances - sum(shares.values())
        shares = {group: max(shares[group], min(sure[group], most)) for group in GROUPS}
    for _ in range(num_instances - sum(shares.values())):
        neediest = min(GROUPS, key=lambda group: burst_tolerance(shares[group], demand.get(group, 0.0)))
        shares[neediest] += 1
    return shares
