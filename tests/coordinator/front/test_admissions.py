"""Who was let in, and for how long."""

from __future__ import annotations

from coordinator.front.admissions import KEEP_S, MAX_KEPT, Admissions
from coordinator.front.caller import proof_of
from coordinator.state import ServedDescription
from core.clock import ManualClock

DESCRIPTION = ServedDescription("m", "", 1, 1, 1, 1, 1, 1.0)


def test_it_is_not_for_long() -> None:
    clock = ManualClock()
    admissions = Admissions(clock)
    admissions.note(proof_of("a"), DESCRIPTION)
    assert admissions.find(proof_of("a")) is DESCRIPTION
    assert admissions.find(proof_of("b")) is None
    clock.advance(KEEP_S)
    assert admissions.find(proof_of("a")) is None


def test_it_is_bounded() -> None:
    admissions = Admissions(ManualClock())
    for index in range(MAX_KEPT + 3):
        admissions.note(proof_of(f"key {index}"), DESCRIPTION)
    assert len(admissions) == MAX_KEPT
    assert admissions.find(proof_of("key 2")) is None
    assert admissions.find(proof_of("key 3")) is DESCRIPTION
