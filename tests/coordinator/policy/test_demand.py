"""What arrives, less what caches spare of it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.policy.cost_model import CostModel
from coordinator.policy.demand import DemandMeter
from coordinator.policy.view import Placement
from core.stages import ModalityGroup
from tests.coordinator.policy.cluster import PROFILE, pictures, text

MEDIA, TEXT = ModalityGroup.MULTIMODAL, ModalityGroup.TEXT


def met(held=frozenset(), saved_share=0.0, requests=400):
    """The demand after so many requests, of each of which caches have the same."""
    meter = DemandMeter(CostModel(PROFILE))
    for number in range(requests):
        work = pictures(f"r{number}", number * 0.01, sizes=(1000, 1000))
        meter.note_arrival(work, work.arrival_s)
        tokens, saved_s = (800, saved_share * work.prefill_s) if saved_share else (0, 0.0)
        placement = Placement(
            work.request_id, ("e", "e"), "p", "p", 0.0, held=held, prefix_tokens=tokens, saved_s=saved_s
        )
        meter.note_dispatch(work, placement)
    return meter.demand(requests * 0.01)[MEDIA]


def after_growth(rate, num_short, num_long):
    """The demand of prompts of 200 tokens, then of 1,000, at that rate."""
    meter = DemandMeter(CostModel(PROFILE))
    for number in range(num_short + num_long):
        prompt = 200 if number < num_short else 1000
        meter.note_arrival(text(f"t{number}", number / rate, prompt=prompt), number / rate)
    return meter.demand((num_short + num_long) / rate)[TEXT]


def test_of_few_requests_fifty_are_remembered():
    demand = after_growth(1.0, 200, 50)
    assert demand.prompt_tokens == pytest.approx(200 + 800 * (1 - 0.98**50), rel=0.01)


def test_of_many_requests_those_of_the_last_seconds_are_remembered():
    """Half a second of long prompts is no new mix, and their rate is what it was."""
    demand = after_growth(100.0, 2000, 50)
    assert demand.prompt_tokens == pytest.approx(200 + 800 * (1 - math.exp(-0.1)), rel=0.02)
    assert demand.rate == pytest.approx(100.0, rel=0.1)
    assert after_growth(100.0, 2000, 2000).prompt_tokens == pytest.approx(1000, rel=0.02)


def after_burst(seconds, answer_s):
    """The demand after a burst of so long on top of a steady load, where answers take that time."""
    meter, now_s = DemandMeter(CostModel(PROFILE)), 0.0
    while now_s < 120 + seconds:
        now_s += 0.1 if now_s < 120 else 0.01
        work = text(f"t{now_s}", now_s)
        meter.note_arrival(work, now_s)
        work.num_outputs = 100
        meter.note_finished(work, answer_s / 100)
        meter.demand(now_s)  # as with every plan
    return meter.demand(now_s)[TEXT]


def test_a_burst_that_is_shorter_than_answers_fills_no_batch():
    short, long = after_burst(3.0, 30.0), after_burst(3.0, 1.0)
    assert short.rate == pytest.approx(long.rate)
    assert 10 < short.answers < 30
    assert long.answers > 40
    assert after_burst(120.0, 30.0).answers == pytest.approx(100, rel=0.1)


def test_items_that_caches_have_are_no_demand_for_encoding():
    cold, half, none = met(), met(frozenset({0})), met(frozenset({0, 1}))
    assert half.encode.rate == pytest.approx(cold.encode.rate / 2, rel=0.05)
    assert half.encode.mean_s == pytest.approx(cold.encode.mean_s)
    assert none.encode.rate == pytest.approx(0.0, abs=0.01 * cold.encode.rate)
    assert half.prefill == pytest.approx(cold.prefill, rel=0.05)


def test_cached_prefixes_shorten_prompts():
    cold, warm = met(), met(saved_share=0.75)
    assert warm.prefill.mean_s == pytest.approx(cold.prefill.mean_s / 4, rel=0.05)
    assert warm.rate == pytest.approx(cold.rate, rel=0.05)
    assert warm.encode.mean_s == cold.encode.mean_s


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), max_size=60))
def test_demand_is_never_negative(dispatches):
    meter = DemandMeter(CostModel(PROFILE))
    for number, (is_held, share) in enumerate(dispatches):
        work = pictures(f"r{number}", number * 0.1)
        meter.note_arrival(work, work.arrival_s)
        held = frozenset({0} if is_held else ())
        placement = Placement(
            work.request_id, ("e",), "p", "p", 0.0, held=held, prefix_tokens=1, saved_s=share * work.prefill_s
        )
        meter.note_dispatch(work, placement)
    for each in meter.demand(len(dispatches) * 0.1).values():
        assert min(each.rate, each.items, each.encode_s, each.prefill_s, each.prefill.mean_s) >= 0
