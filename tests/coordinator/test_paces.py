"""Measured device time beside the profile's."""

import pytest

from coordinator.paces import Paces
from core.costs import chunk_shape, decode_shape
from tests.quick_profile import make_profile

PROFILE = make_profile()


def test_adds_up_what_was_measured_and_what_the_profile_says() -> None:
    paces, shape = Paces(PROFILE), chunk_shape(64)
    paces.note_step("a", decode_shape(2, 64), 5.0)
    for seconds in (1.0, 2.0):
        paces.note_step("a", shape, seconds)
        paces.note_encode("a", 16, 2 * seconds)
    assert paces.decodes["a"].measured_s == 5.0
    assert paces.prefills["a"].measured_s == 3.0
    assert paces.prefills["a"].profiled_s == pytest.approx(2 * PROFILE.step.step_s(shape))
    assert paces.encodes["a"].measured_s == 6.0
    assert paces.encodes["a"].profiled_s == pytest.approx(2 * PROFILE.encode.encode_s(16))


def test_instances_count_by_themselves_and_are_forgotten() -> None:
    paces = Paces(PROFILE)
    for name in ("a", "b"):
        paces.note_step(name, chunk_shape(8), 1.0)
        paces.note_encode(name, 8, 1.0)
    paces.forget("a")
    paces.forget("c")
    assert paces.prefills["a"].measured_s == paces.encodes["a"].measured_s == 0.0
    assert paces.prefills["b"].measured_s == paces.encodes["b"].measured_s == 1.0
