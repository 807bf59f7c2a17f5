"""What a cluster's instances play and are to play, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from elasticmm.v1 import admin_pb2
from elasticmm_client.roles import GROUPS, STAGES


@dataclass(frozen=True, slots=True)
class Assignment:
    """Stages, of "encode", "prefill", "decode", and whom they serve: "text", "multimodal" or "shared"."""

    roles: tuple[str, ...]
    group: str

    def __str__(self) -> str:
        return f"{self.group}:{'+'.join(self.roles)}"


@dataclass(frozen=True, slots=True)
class Pace:
    """Device time since the instance attached, and what the coordinator's profile says of the same work."""

    measured_s: float
    profiled_s: float

    @property
    def factor(self) -> float | None:
        """How many times the profile's time was taken; None before there was any work."""
        return self.measured_s / self.profiled_s if self.profiled_s else None


@dataclass(frozen=True, slots=True)
class PlannedInstance:
    id: str
    present: Assignment
    wanted: Assignment | None  # None: the plan has no opinion
    state: str  # "serving", "draining", "drained", or how far a transition is
    since_s: float  # for so long it has played this
    is_pinned: bool
    is_drained: bool
    last_failure: str  # why the last transition was rolled back; empty if it was not
    decodes: Pace  # of steps without prompts
    prefills: Pace  # of steps with some
    encodes: Pace
    arm: str = ""  # of the trial that runs: "a" or "b"; empty: none runs


@dataclass(frozen=True, slots=True)
class PastTransition:
    """An instance that came to play other stages, or did not."""

    number: int  # counts from 1 since the coordinator started
    instance_id: str
    before: Assignment
    after: Assignment
    is_done: bool  # False: rolled back
    took_s: float
    clearing_s: float  # the part of it before the instance was told to switch
    num_resident: int  # sequences prefilling or decoding there at its start, or about to
    num_moved: int  # those of them moved to other instances first
    size_bytes: int  # of those moves
    age_s: float  # since it ended


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """Instances in order of their ids."""

    policy: str
    version: int
    instances: tuple[PlannedInstance, ...]
    transitions_done: int
    transitions_rolled_back: int
    past: tuple[PastTransition, ...]  # the newest transitions that have ended, oldest first


@dataclass(frozen=True, slots=True)
class Decision:
    """One choice of a policy."""

    age_s: float
    piece: str
    subject: str  # a request or an instance
    choice: str
    numbers: Mapping[str, float]  # what was weighed, unit in the name
    is_shadow: bool = False  # it was not acted on
    arm: str = ""  # "b" where it is of the set that a trial gives a share


def plan_from_proto(message: admin_pb2.GetPlanResponse) -> ClusterPlan:
    return ClusterPlan(
        policy=message.policy,
        version=message.version,
        instances=tuple(sorted((_planned(each) for each in message.instances), key=lambda each: each.id)),
        transitions_done=message.transitions_done,
        transitions_rolled_back=message.transitions_rolled_back,
        past=tuple(_past(each) for each in message.past),
    )


def decisions_from_proto(message: admin_pb2.WhyResponse) -> tuple[Decision, ...]:
    return tuple(
        Decision(
            each.age_s, each.piece, each.subject, each.choice, dict(each.numbers), each.is_shadow, each.arm
        )
        for each in message.decisions
    )


def _planned(message: admin_pb2.PlannedInstance) -> PlannedInstance:
    return PlannedInstance(
        id=message.instance_id,
        present=assignment_from_proto(message.present),
        wanted=assignment_from_proto(message.wanted) if message.HasField("wanted") else None,
        state=message.state,
        since_s=message.since_s,
        is_pinned=message.is_pinned,
        is_drained=message.is_drained,
        last_failure=message.last_failure,
        decodes=_pace(message.decodes),
        prefills=_pace(message.prefills),
        encodes=_pace(message.encodes),
        arm=message.arm,
    )


def _pace(message: admin_pb2.Pace) -> Pace:
    return Pace(message.measured_s, message.profiled_s)


def _past(message: admin_pb2.PastTransition) -> PastTransition:
    return PastTransition(
        number=message.number,
        instance_id=message.instance_id,
        before=assignment_from_proto(message.before),
        after=assignment_from_proto(message.after),
        is_done=message.is_done,
        took_s=message.took_s,
        clearing_s=message.clearing_s,
        num_resident=message.num_resident,
        num_moved=message.num_moved,
        size_bytes=message.size_bytes,
        age_s=message.age_s,
    )


def assignment_from_proto(message: admin_pb2.Assignment) -> Assignment:
    roles = tuple(name for stage, name in STAGES.items() if stage in message.roles)
    return Assignment(roles, GROUPS.get(message.group, "shared"))
