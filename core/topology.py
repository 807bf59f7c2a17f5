"""Which role sets a static cluster runs: "coupled", "e1p1d1", "ep1d2", …"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from core.stages import COUPLED, Roles, Stage, parse_roles, roles_name

_GROUP = re.compile(r"([a-z]+)(\d+)")
_MAX_INSTANCES = 1024


@dataclass(frozen=True, slots=True)
class Topology:
    """The role set of every instance, in order of start."""

    name: str
    instances: tuple[Roles, ...]

    @property
    def num_instances(self) -> int:
        return len(self.instances)

    def missing(self, present: Iterable[Roles]) -> int:
        """How many of the wanted role sets are not among `present`."""
        return (Counter(self.instances) - Counter(present)).total()


def parse_topology(name: str, num_instances: int | None = None) -> Topology:
    """The topology of that name.

    "coupled" is `num_instances` (default 1) instances of all stages. Groups such
    as "e1p2d3" or "ep1d2" give letters and a count each. "auto" is coupled up
    to two instances, else "e1p1d(N-2)".

    Raises ValueError naming the field: an unknown name, a stage that nobody
    plays, or a count at odds with `num_instances`.
    """
    if num_instances is not None and not 1 <= num_instances <= _MAX_INSTANCES:
        raise ValueError(f"instances: {num_instances} is not between 1 and {_MAX_INSTANCES}")
    wanted = name.strip().lower()
    if wanted == "auto":
        wanted = _automatic(num_instances or 1)
    if wanted == "coupled":
        return _build("coupled", [COUPLED] * (num_instances or 1))
    topology = _build(wanted, _parse_groups(wanted))
    if num_instances is not None and num_instances != topology.num_instances:
        raise ValueError(f"instances: topology {wanted!r} has {topology.num_instances}, not {num_instances}")
    return topology


def _automatic(num_instances: int) -> str:
    return "coupled" if num_instances < len(Stage) else f"e1p1d{num_instances - 2}"


def _parse_groups(name: str) -> list[Roles]:
    groups = _GROUP.findall(name)
    if not groups or "".join(letters + count for letters, count in groups) != name:
        raise ValueError(
            f"topology: {name!r} is none of auto, coupled, or groups such as 'e1p1d1' and 'ep1d2'"
        )
    instances: list[Roles] = []
    for letters, count in groups:
        instances += [_group_roles(letters, name)] * _group_count(count, letters, name)
    return instances


def _group_roles(letters: str, name: str) -> Roles:
    stages = {stage.value for stage in Stage}
    if not set(letters) <= stages or len(set(letters)) != len(letters):
        raise ValueError(
            f"topology: {letters!r} in {name!r} is no role set (each of the letters 'epd' at most once)"
        )
    return parse_roles(letters)


def _group_count(count: str, letters: str, name: str) -> int:
    if not 1 <= int(count) <= _MAX_INSTANCES:
        raise ValueError(f"topology: {letters}{count} in {name!r} is not between 1 and {_MAX_INSTANCES}")
    return int(count)


def _build(name: str, instances: list[Roles]) -> Topology:
    unplayed = set(Stage) - set().union(*instances)
    if unplayed:
        raise ValueError(f"topology: nobody in {name!r} plays {roles_name(unplayed)!r}")
    return Topology(name, tuple(instances))
