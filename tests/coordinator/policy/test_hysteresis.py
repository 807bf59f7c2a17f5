from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from coordinator.policy.hysteresis import Hysteresis
from tests.coordinator.policy.cluster import instance


def test_an_instance_stays_for_its_dwell():
    hysteresis, book = Hysteresis(dwell_s=5.0), instance("a")
    assert hysteresis.may_move(book, 0.0)
    hysteresis.note_change("a", 10.0)
    assert not hysteresis.may_move(book, 14.9)
    assert hysteresis.may_move(book, 15.0)


def test_the_dwell_begins_when_the_change_was_made():
    hysteresis, book = Hysteresis(dwell_s=5.0), instance("a")
    hysteresis.note_change("a", 10.0)
    book.since_s = 13.0
    assert not hysteresis.may_move(book, 17.9)
    assert hysteresis.may_move(book, 18.0)


def test_changes_in_quick_succession_stay_longer_each_time_up_to_a_bound():
    hysteresis, book = Hysteresis(dwell_s=5.0, memory_s=60.0, most_dwell_s=20.0), instance("a")
    waits, now_s = [], 0.0
    for _ in range(4):
        hysteresis.note_change("a", now_s)
        waits.append(next(wait for wait in range(100) if hysteresis.may_move(book, now_s + wait)))
        now_s += waits[-1]
    assert waits == [5, 10, 20, 20]


def test_a_late_change_starts_over():
    hysteresis, book = Hysteresis(dwell_s=5.0, memory_s=60.0), instance("a")
    hysteresis.note_change("a", 0.0)
    hysteresis.note_change("a", 61.0)
    assert hysteresis.may_move(book, 66.0)


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=50))
def test_changes_are_bounded_whatever_is_asked(times):
    """Asked at every moment, an instance changes at most once per dwell."""
    hysteresis, book, made = Hysteresis(dwell_s=5.0), instance("a"), []
    for now_s in sorted(times):
        if hysteresis.may_move(book, now_s):
            hysteresis.note_change("a", now_s)
            made.append(now_s)
    assert all(later - earlier >= 5.0 for earlier, later in pairwise(made))


def test_none_lets_everything_through_and_gone_instances_are_forgotten():
    hysteresis = Hysteresis.none()
    hysteresis.note_change("a", 10.0)
    assert hysteresis.may_move(instance("a"), 10.0)
    assert hysteresis.improves(1.0, 0.999)
    hysteresis.note_form("a", "b", 10.0)
    assert hysteresis.may_take("a", 10.0)
    kept = Hysteresis()
    kept.note_change("a", 10.0)
    kept.forget([])
    assert kept.may_move(instance("a"), 10.0)


def test_forms_that_take_turns_stay_longer_each_time_up_to_a_bound():
    hysteresis = Hysteresis(dwell_s=5.0, memory_s=60.0, most_form_dwell_s=20.0)
    hysteresis.note_form("a", "b", 0.0)
    waits, now_s = [], 0.0
    for before, form in (("b", "a"), ("a", "b"), ("b", "a"), ("a", "b")):
        waits.append(next(wait for wait in range(100) if hysteresis.may_take(form, now_s + wait)))
        now_s += waits[-1]
        hysteresis.note_form(before, form, now_s)
    assert waits == [5, 10, 20, 20]


def test_a_form_that_was_not_there_lately_may_come_at_once():
    hysteresis = Hysteresis(dwell_s=5.0, memory_s=60.0)
    hysteresis.note_form("a", "b", 0.0)
    hysteresis.note_form("b", "a", 5.0)
    assert hysteresis.may_take("c", 5.0)
    assert not hysteresis.may_take("b", 14.9)
    assert hysteresis.may_take("b", 15.0)
    hysteresis.note_form("a", "b", 65.0)  # late: it starts over
    assert hysteresis.may_take("a", 70.0)


@given(st.lists(st.tuples(st.floats(0, 1000), st.sampled_from("abc")), min_size=1, max_size=60))
def test_two_forms_swing_at_most_once_per_dwell(asked):
    """Whatever is asked, nothing that was given up comes back within five seconds of the last change."""
    hysteresis, form, made = Hysteresis(dwell_s=5.0, memory_s=60.0), "a", []
    for now_s, other in sorted(asked):
        if other != form and hysteresis.may_take(other, now_s):
            was_there = any(before == other and now_s - at_s < 60 for at_s, before in made)
            assert not (was_there and now_s - made[-1][0] < 5.0)
            made.append((now_s, form))
            hysteresis.note_form(form, other, now_s)
            form = other


def test_what_scores_almost_nothing_cannot_be_improved():
    hysteresis = Hysteresis(least_improvement=0.05)
    assert not hysteresis.can_improve(0.05)
    assert hysteresis.can_improve(0.051)
    assert hysteresis.can_improve(float("inf"))
