import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.policy.queueing import MOST_LOAD, OVERLOAD_S, Flow, mixed_turn_s, pooled, wait_90_s

means = st.floats(0.001, 1.0)
loads = st.floats(0.05, 0.9)


def exponential(load: float, mean_s: float, servers: int = 1) -> Flow:
    return Flow(load * servers / mean_s, mean_s, 2 * mean_s**2)


@given(loads, means)
def test_one_server_with_exponential_jobs_is_the_textbook_queue(load, mean_s):
    """M/M/1: P(wait) = load, and P(wait > t) = load * exp(-(1 - load) * t / mean)."""
    queue = pooled(exponential(load, mean_s), 1)
    assert math.isclose(queue.wait_chance, load)
    exact_s = max(0.0, mean_s / (1 - load) * math.log(10 * load))
    assert math.isclose(wait_90_s(queue), exact_s, rel_tol=1e-6, abs_tol=1e-12)


@given(loads, means, st.integers(1, 50))
def test_more_servers_at_equal_load_wait_less(load, mean_s, servers):
    few, many = (pooled(exponential(load, mean_s, count), count) for count in (servers, servers + 1))
    assert wait_90_s(many) <= wait_90_s(few) + 1e-9


@given(st.floats(0.05, 1.5), st.floats(0.05, 1.5), means)
def test_more_load_never_waits_less(one, other, mean_s):
    low, high = (pooled(exponential(load, mean_s), 1) for load in sorted((one, other)))
    assert wait_90_s(low) <= wait_90_s(high) + 1e-9


def test_who_goes_first_waits_less_than_who_does_not():
    queue = pooled(exponential(0.8, 0.1), 1)
    assert wait_90_s(queue, 0.0, 0.2) < wait_90_s(queue) < wait_90_s(queue, 0.2, 0.8)


def test_overload_counts_what_the_queue_grows_to():
    queue = pooled(exponential(MOST_LOAD + 0.5, 0.1), 1)
    assert wait_90_s(queue) > 0.5 * OVERLOAD_S


def test_nothing_to_do_is_no_wait():
    assert wait_90_s(pooled(Flow(), 3)) == 0.0


@given(st.floats(0.1, 20), means)
def test_flows_add_up_by_work_and_squares(rate, mean_s):
    one, other = Flow(rate, mean_s, mean_s**2), Flow(3.0, 0.2, 0.05)
    both = one.plus(other)
    assert math.isclose(both.work, one.work + other.work)
    assert math.isclose(both.rate * both.square_s2, one.rate * one.square_s2 + other.rate * other.square_s2)


def test_a_turn_without_others_is_the_decode_step():
    assert mixed_turn_s(0.012, 0.004, Flow(), 0.012) == pytest.approx(0.012)


def test_a_mixed_turn_solves_its_equation():
    others, turn_s = Flow(10.0, 0.05, 0.004), 0.012
    for _ in range(100):
        turn_s = mixed_turn_s(0.012, 0.004, others, turn_s)
    none = math.exp(-10.0 * turn_s)
    assert turn_s * 0.5 == pytest.approx(none * 0.012 + (1 - none) * 0.004)
