import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.policy.queueing import (
    MOST_LOAD,
    OVERLOAD_S,
    Flow,
    log_normal_within,
    lost_share,
    mixed_rate_s,
    mixed_turn_s,
    pooled,
    wait_90_s,
)

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


@given(st.floats(0.01, 20), st.floats(0, 100), st.floats(0, 10))
def test_the_lost_share_falls_with_patience_from_erlangs_loss_to_what_is_too_much(load, per_s, patience_s):
    lost = lost_share(load, per_s, patience_s)
    assert max(0.0, 1 - 1 / load) - 1e-6 <= lost <= load / (1 + load) + 1e-6
    assert lost_share(load, per_s, patience_s + 1) <= lost + 1e-6


@given(st.floats(0.05, 5), st.floats(0.1, 20))
def test_the_lost_share_has_no_step_at_full_load(per_s, patience_s):
    full = lost_share(1.0, per_s, patience_s)
    assert math.isclose(full, 1 / (2 + per_s * patience_s), rel_tol=1e-6)
    assert math.isclose(lost_share(1.0 + 1e-5, per_s, patience_s), full, rel_tol=1e-3)


def test_the_lost_share_is_that_of_a_queue_played_through():
    rng, load, per_s, patience_s = random.Random(1), 1.1, 2.0, 1.5
    free_s = now_s = lost = 0.0
    for _ in range(100_000):
        now_s += rng.expovariate(load * per_s)
        if free_s - now_s > patience_s:
            lost += 1
        else:
            free_s = max(free_s, now_s) + rng.expovariate(per_s)
    assert math.isclose(lost / 100_000, lost_share(load, per_s, patience_s), rel_tol=0.03)


@given(st.floats(0.001, 0.1), st.floats(0.001, 0.5), st.floats(0, 1))
def test_tokens_of_two_kinds_of_turns_add_up(alone_s, busy_s, busy):
    """In a second, busy / busy_s turns of the one kind and (1 - busy) / alone_s of the other."""
    mean_s = mixed_rate_s(alone_s, busy_s, busy)
    assert min(alone_s, busy_s) - 1e-12 <= mean_s <= max(alone_s, busy_s) + 1e-12
    assert math.isclose(1 / mean_s, busy / busy_s + (1 - busy) / alone_s)


@given(means, st.floats(0, 2.0), st.floats(0, 3.0))
def test_parts_of_a_distribution_lie_in_order_below_the_limit(mean, deviation, most):
    share, sizes = log_normal_within(mean, deviation, most)
    assert 0 <= share <= 1
    assert sizes == sorted(sizes)
    assert all(0 <= size <= most for size in sizes)
    assert share <= log_normal_within(mean, deviation, 2 * most)[0]


@given(means, st.floats(0, 1.0))
def test_parts_of_a_whole_distribution_have_about_its_mean(mean, relative):
    share, sizes = log_normal_within(mean, relative * mean, 1000 * mean)
    assert share > 0.999
    assert 0.85 * mean <= sum(sizes) / len(sizes) <= mean + 1e-9


def test_half_of_a_distribution_lies_below_its_middle():
    share, _ = log_normal_within(1.0, 1.0, 1 / math.sqrt(2))
    assert share == pytest.approx(0.5)
    assert log_normal_within(1.0, 0.0, 0.9)[0] == 0
    assert log_normal_within(1.0, 0.0, 1.1) == (1.0, [1.0])
