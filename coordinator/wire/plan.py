"""Plans and decisions as messages."""

from __future__ import annotations

from coordinator.paces import Pace
from coordinator.planner import PlannedInstance, PlanStatus
from coordinator.policy.decisions import Decision
from coordinator.policy.plan import Assignment
from coordinator.policy.transition import PastTransition
from coordinator.wire.stages import from_group, from_roles
from elasticmm.v1 import admin_pb2 as pb


def from_plan(status: PlanStatus, now_s: float) -> pb.GetPlanResponse:
    return pb.GetPlanResponse(
        policy=status.policy,
        version=status.version,
        instances=[_from_planned(each) for each in status.instances],
        transitions_done=status.num_done,
        transitions_rolled_back=status.num_rolled_back,
        past=[_from_past(each, now_s) for each in status.past],
    )


def from_decision(decision: Decision, now_s: float, *, is_shadow: bool = False) -> pb.Decision:
    return pb.Decision(
        age_s=now_s - decision.at_s,
        piece=decision.piece,
        subject=decision.subject,
        choice=decision.choice,
        numbers=dict(decision.numbers),
        is_shadow=is_shadow,
        arm="" if decision.arm is None else decision.arm.value,
    )


def _from_planned(planned: PlannedInstance) -> pb.PlannedInstance:
    message = pb.PlannedInstance(
        instance_id=planned.instance_id,
        present=from_assignment(planned.present),
        state=planned.state,
        since_s=planned.since_s,
        is_pinned=planned.is_pinned,
        is_drained=planned.is_drained,
        last_failure=planned.last_failure,
        decodes=_from_pace(planned.decodes),
        prefills=_from_pace(planned.prefills),
        encodes=_from_pace(planned.encodes),
        arm="" if planned.arm is None else planned.arm.value,
    )
    if planned.wanted is not None:
        message.wanted.CopyFrom(from_assignment(planned.wanted))
    return message


def _from_pace(pace: Pace) -> pb.Pace:
    return pb.Pace(measured_s=pace.measured_s, profiled_s=pace.profiled_s)


def _from_past(past: PastTransition, now_s: float) -> pb.PastTransition:
    return pb.PastTransition(
        number=past.number,
        instance_id=past.instance_id,
        before=from_assignment(past.before),
        after=from_assignment(past.after),
        is_done=past.is_done,
        took_s=past.took_s,
        clearing_s=past.clearing_s,
        num_resident=past.num_resident,
        num_moved=past.cleared.num_moved,
        size_bytes=past.cleared.size_bytes,
        age_s=now_s - past.ended_s,
    )


def from_assignment(assignment: Assignment) -> pb.Assignment:
    return pb.Assignment(roles=from_roles(assignment.roles), group=from_group(assignment.group))
