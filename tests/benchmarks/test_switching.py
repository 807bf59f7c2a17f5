"""Pins that cover all pairs, answers compared, and times told apart by what was resident."""

import random

import pytest

from benchmarks.elasticity.answers import Reference, Tally
from benchmarks.elasticity.pins import ALL_GROUP_PAIRS, ALL_PAIRS, PinChooser
from benchmarks.switching import is_good, times_of
from elasticmm_client.plan import Assignment, Pace, PastTransition, PlannedInstance

COUPLED = Assignment(("encode", "prefill", "decode"), "shared")
NONE = Pace(0.0, 0.0)


def instance(name: str, present: Assignment) -> PlannedInstance:
    return PlannedInstance(name, present, None, "serving", 0.0, False, False, "", NONE, NONE, NONE)


def past(number: int, took_s: float, *, resident: int = 0, moved: int = 0) -> PastTransition:
    return PastTransition(
        number, "a", COUPLED, COUPLED, True, took_s, took_s / 2, resident, moved, moved * 10, age_s=0.0
    )


def test_pins_cover_all_pairs_of_role_sets_and_groups() -> None:
    chooser, present, rng = PinChooser(seed=1), {"a": COUPLED, "b": COUPLED}, random.Random(2)
    for _ in range(400):
        pins = chooser.candidates([instance(name, each) for name, each in present.items()])
        name, after = pins[rng.randrange(2)]  # as if the first were refused now and then
        assert after != present[name]
        chooser.note(present[name], after)
        present[name] = after
    assert chooser.pairs == ALL_PAIRS
    assert chooser.group_pairs == ALL_GROUP_PAIRS


def test_pins_are_those_of_the_seed() -> None:
    instances = [instance("a", COUPLED), instance("b", COUPLED)]
    assert PinChooser(3).candidates(instances) == PinChooser(3).candidates(instances)
    assert PinChooser(3).candidates(instances) != PinChooser(4).candidates(instances)


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ((1, 2, 3), (3, 0, 0, 0)),
        ((1, 9, 8), (2, 1, 1, 0)),  # a near tie at the second token
        ((1, 2, 4), (0, 0, 0, 1)),
        ((1, 2), (0, 0, 0, 1)),
    ],
)
def test_answers_are_compared(tokens: tuple[int, ...], expected: tuple[int, ...]) -> None:
    tally = Tally()
    tally.compare(Reference((1, 2, 3), gaps=(1.0, 1e-5, 1.0)), tokens)
    assert (tally.num_tokens, tally.num_ties, tally.num_left_out, tally.num_wrong) == expected
    assert tally.is_exact is not bool(expected[3])


def test_many_ties_are_not_exact() -> None:
    assert not Tally(num_tokens=10_000, num_ties=2).is_exact
    assert Tally(num_tokens=20_000, num_ties=2).is_exact


def test_times_are_told_apart() -> None:
    times = times_of(
        [past(1, 0.1), past(2, 0.3), past(3, 0.2, resident=2), past(4, 0.5, resident=2, moved=1)]
    )
    assert [each["switches"] for each in times.values()] == [2, 1, 1]
    assert times["nothing resident"]["took_ms"]["max"] == pytest.approx(300)
    assert times["resident, moved first"]["moved_bytes"] == 10


def test_what_is_good() -> None:
    report = {"requests": {"failed": 0}, "tokens": {"is_exact": True}, "switches": {"rolled_back": 0}}
    assert is_good(report)
    assert not is_good(report | {"requests": {"failed": 1}})
    assert not is_good(report | {"switches": {"rolled_back": 1}})
