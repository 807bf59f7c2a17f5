"""How instances and requests are divided."""

from __future__ import annotations

import pytest

from coordinator.policy.seat import Arm
from coordinator.policy.trials.shares import TrialWish, arm_of_newcomer, chosen_for_b, home_of, parse_wish
from tests.coordinator.policy.cluster import instance

KEYS = [f"r{number}".encode() for number in range(4000)]


@pytest.mark.parametrize(
    ("words", "wish"),
    [
        ("coupled:0.25", TrialWish("coupled", 0.25)),
        ("coupled", TrialWish("coupled", 0.5)),
        ("static:equal", TrialWish("static:equal", 0.5)),
        ("static:equal:0.3", TrialWish("static:equal", 0.3)),
    ],
)
def test_wishes_are_read(words: str, wish: TrialWish) -> None:
    assert parse_wish(words) == wish


@pytest.mark.parametrize("words", ["coupled:0", "coupled:1", "emp:1.5"])
def test_a_share_leaves_something_for_both(words: str) -> None:
    with pytest.raises(ValueError, match="is not between 0 and 1"):
        parse_wish(words)


@pytest.mark.parametrize(("share", "count"), [(0.01, 1), (0.25, 2), (0.5, 4), (0.99, 7)])
def test_both_arms_get_an_instance_at_least(share: float, count: int) -> None:
    assert len(chosen_for_b([instance(f"i{number}") for number in range(8)], share)) == count


def test_each_kind_is_divided() -> None:
    kinds = {"e": 2, "p": 4, "d": 4}
    books = [instance(f"{roles}{n}", roles) for roles, count in kinds.items() for n in range(count)]
    chosen = chosen_for_b(books, 0.5)
    assert {roles: sum(name[0] == roles for name in chosen) for roles in kinds} == {"e": 1, "p": 2, "d": 2}


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.75])
def test_instances_that_come_one_by_one_are_divided_as_well(share: float) -> None:
    counts = {Arm.A: 0, Arm.B: 0}
    for total in range(1, 41):
        counts[arm_of_newcomer(counts[Arm.A], counts[Arm.B], share)] += 1
        assert abs(counts[Arm.B] - share * total) <= 0.5


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_keys_are_divided_by_share_and_a_change_of_it_moves_them_one_way(share: float) -> None:
    before = {key for key in KEYS if home_of("x", key, share) is Arm.B}
    more = {key for key in KEYS if home_of("x", key, share + 0.1) is Arm.B}
    assert len(before) / len(KEYS) == pytest.approx(share, abs=0.03)
    assert before < more
    assert {key for key in KEYS if home_of("y", key, share) is Arm.B} != before
