from __future__ import annotations

from dataclasses import replace

from coordinator.planner import PlanStatus
from coordinator.policy.decisions import Decision
from coordinator.policy.plan import Assignment
from coordinator.policy.transition import Cleared, PastTransition
from coordinator.wire.plan import from_decision, from_plan
from core.stages import COUPLED, ModalityGroup, Stage
from elasticmm.v1 import inference_pb2, stage_control_pb2

PAST = PastTransition(
    number=4,
    ended_s=90.0,
    instance_id="i0",
    before=Assignment(COUPLED),
    after=Assignment(frozenset({Stage.DECODE}), ModalityGroup.TEXT),
    is_done=True,
    took_s=2.5,
    clearing_s=2.0,
    num_resident=3,
    cleared=Cleared(2, 7),
)


def test_past_transitions_tell_how_long_ago_they_ended() -> None:
    status = PlanStatus("emp", 7, (), num_done=1, num_rolled_back=2, past=(PAST, replace(PAST, ended_s=99.5)))
    message = from_plan(status, now_s=100.0)
    assert [each.age_s for each in message.past] == [10.0, 0.5]
    first = message.past[0]
    assert (first.number, first.instance_id, first.is_done) == (4, "i0", True)
    assert (first.took_s, first.clearing_s, first.num_resident) == (2.5, 2.0, 3)
    assert (first.num_moved, first.size_bytes) == (2, 7)
    assert list(first.after.roles) == [inference_pb2.STAGE_DECODE]
    assert first.after.group == stage_control_pb2.MODALITY_GROUP_TEXT
    assert (message.transitions_done, message.transitions_rolled_back) == (1, 2)


def test_decisions_tell_how_old_they_are() -> None:
    message = from_decision(Decision(1.5, "search", "cluster", "splits", {"score": 0.5}), now_s=4.0)
    assert (message.age_s, message.piece, message.subject) == (2.5, "search", "cluster")
    assert dict(message.numbers) == {"score": 0.5}
