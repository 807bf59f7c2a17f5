"""Where every group stands, by what the plan wants of each instance."""

from __future__ import annotations

from collections.abc import Mapping

from coordinator.policy.books import Books
from coordinator.policy.costing import Costing
from coordinator.policy.demand import DemandMeter
from coordinator.policy.forms import Form, Forms, Pool
from coordinator.policy.plan import Assignment
from coordinator.policy.standing import Standing
from core.stages import ModalityGroup, Roles, Stage

Standings = dict[ModalityGroup, Standing]


def standings_of(
    books: Books, wanted: Mapping[str, Assignment], costing: Costing, meter: DemandMeter
) -> Standings:
    """One for each group that the plan has."""
    members: dict[ModalityGroup, dict[str, Roles]] = {}
    for name, assignment in wanted.items():
        members.setdefault(assignment.group, {})[name] = assignment.roles
    return {
        group: Standing(group, own, books, costing, meter.output_tokens(group))
        for group, own in members.items()
    }


def forms_of(wanted: Mapping[str, Assignment]) -> Forms | None:
    """The forms that the plan makes.

    None if it mixes SHARED with groups, has a stage in two pools, or lacks one that the group needs.
    """
    counts: dict[Assignment, int] = {}
    for assignment in wanted.values():
        counts[assignment] = counts.get(assignment, 0) + 1
    forms: dict[ModalityGroup, Form] = {}
    for assignment, count in counts.items():
        forms[assignment.group] = (
            *forms.get(assignment.group, ()),
            Pool(assignment.roles, count),
        )
    is_mixed = ModalityGroup.SHARED in forms and len(forms) > 1
    is_odd = any(not _is_whole(group, form) for group, form in forms.items())
    return None if is_mixed or is_odd else forms


def roles_for(stage: Stage, group: ModalityGroup, wanted: Mapping[str, Assignment]) -> Roles:
    """What one more instance for a stage is to play: what others do there, else the stage alone."""
    for assignment in wanted.values():
        if assignment.group is group and stage in assignment.roles:
            return assignment.roles
    return frozenset((stage,))


def _is_whole(group: ModalityGroup, form: Form) -> bool:
    """Every stage is in one pool, encode of text in none or one."""
    played = [stage for pool in form for stage in pool.roles]
    needed = {Stage.PREFILL, Stage.DECODE} if group is ModalityGroup.TEXT else set(Stage)
    return len(played) == len(set(played)) and needed <= set(played)
