"""The desired group and roles of every instance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from core.stages import ModalityGroup, Roles, Stage, roles_name

GROUPS = (ModalityGroup.TEXT, ModalityGroup.MULTIMODAL)


@dataclass(frozen=True, slots=True)
class Assignment:
    """What one instance is to play, and for whom."""

    roles: Roles
    group: ModalityGroup = ModalityGroup.SHARED

    def serves(self, group: ModalityGroup) -> bool:
        return self.group in (group, ModalityGroup.SHARED)

    def __str__(self) -> str:
        return f"{self.group.value}:{roles_name(self.roles)}"


class PlanError(ValueError):
    """A plan that could not serve; the message names the group and the stage."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Wanted assignments by instance; `version` goes up with every change."""

    version: int = 0
    wanted: Mapping[str, Assignment] = field(default_factory=dict)

    def check(self) -> None:
        """Raises PlanError if a group would lack a stage that it needs."""
        check_assignments(self.wanted.values())


def needed_stages(group: ModalityGroup) -> Roles:
    """What somebody must play for the group."""
    return frozenset(Stage) if group is ModalityGroup.MULTIMODAL else frozenset({Stage.PREFILL, Stage.DECODE})


def check_assignments(assignments: Iterable[Assignment]) -> None:
    """Raises PlanError if text or multimodal traffic could not be served by these."""
    for group, lacking in lacking_stages(assignments).items():
        *others, last = (stage.name.lower() for stage in Stage if stage in lacking)
        names = f"{', '.join(others)} or {last}" if others else last
        raise PlanError(f"nobody would play {names} for {group.value} requests")


def lacking_stages(assignments: Iterable[Assignment]) -> dict[ModalityGroup, Roles]:
    """By group, stages that none of these plays for it; groups that lack none are left out."""
    present = set(assignments)  # few differ, whatever the number of instances
    lacking = {
        group: needed_stages(group).difference(*(each.roles for each in present if each.serves(group)))
        for group in GROUPS
    }
    return {group: stages for group, stages in lacking.items() if stages}
