import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.policy.balancer import balanced
from coordinator.policy.cost_model import CostModel
from coordinator.policy.costing import Costing
from coordinator.policy.forms import ED, EP, PD, D, E, P, Pool
from coordinator.policy.outlook import Outlook, OutlookScore
from coordinator.policy.plan import GROUPS
from coordinator.policy.prediction import Predictor, missing
from coordinator.policy.scheduler import Slo
from coordinator.policy.search import Search
from core.stages import COUPLED, ModalityGroup
from tests.coordinator.policy.cluster import PROFILE
from tests.coordinator.policy.demands import demand_of

SHARED, TEXT, MEDIA = ModalityGroup.SHARED, ModalityGroup.TEXT, ModalityGroup.MULTIMODAL
SLO = Slo(0.5, 0.1, 2.0)
COSTING = Costing(CostModel(PROFILE))
PREDICTOR = Predictor(COSTING, SLO)
SEARCH = Search(COSTING, OutlookScore(PREDICTOR))


def best(count, demand):
    work = {g: each.rate for g, each in demand.items()}
    split = balanced(count, work, dict.fromkeys(GROUPS, 1)) if count > 2 else None
    return SEARCH.best(count, Outlook(demand, {}), split)


rates = st.floats(0.1, 300)
FORMS = [
    {SHARED: form}
    for form in (
        (Pool(COUPLED, 8),),
        (Pool(EP, 6), Pool(D, 2)),
        (Pool(E, 3), Pool(PD, 5)),
        (Pool(ED, 4), Pool(P, 4)),
        (Pool(E, 3), Pool(P, 3), Pool(D, 2)),
    )
]


@given(rates, rates, st.sampled_from(FORMS))
def test_predictions_are_finite_and_never_faster_than_the_work_itself(texts, images, forms):
    demand = demand_of(texts, images)
    latencies = PREDICTOR.latencies(forms, demand)
    for group, latency in latencies.items():
        assert math.isfinite(latency.ttft_s)
        assert latency.ttft_s >= demand[group].prefill_s
        assert latency.tpot_s >= PROFILE.step.fixed_s


@given(rates, rates, st.sampled_from(FORMS), st.booleans())
def test_no_score_is_below_zero(texts, images, forms, late_yields):
    """A form that scores less than what another must gain need not be compared with any."""
    predictor = Predictor(COSTING, SLO, late_yields=late_yields)
    assert predictor.score(forms, demand_of(texts, images)) >= 0


@given(rates, rates, st.sampled_from(FORMS))
def test_twice_the_load_is_never_predicted_to_be_better(texts, images, forms):
    low = PREDICTOR.score(forms, demand_of(texts, images))
    high = PREDICTOR.score(forms, demand_of(2 * texts, 2 * images))
    assert high >= low - 1e-3


@given(st.integers(1, 12), rates, rates)
def test_the_search_never_loses_to_simple_forms(count, texts, images):
    demand = demand_of(texts, images)
    found = best(count, demand)
    assert sum(pool.size for form in found.forms.values() for pool in form) == count
    coupled = PREDICTOR.score({SHARED: (Pool(COUPLED, count),)}, demand)
    assert found.score <= SEARCH.best(count, Outlook(demand, {}), None).score <= coupled


def test_a_single_instance_is_coupled():
    assert best(1, demand_of(5, 5)).forms == {SHARED: (Pool(COUPLED, 1),)}


@pytest.mark.parametrize("demand", [demand_of(2, 0), demand_of(1, 0.5)])
def test_light_load_and_text_alone_lose_little_by_staying_coupled(demand):
    coupled = PREDICTOR.score({SHARED: (Pool(COUPLED, 8),)}, demand)
    assert coupled - best(8, demand).score < 0.03


def test_long_prompts_that_stall_decodes_are_kept_apart_from_them():
    """A prompt of 8,000 tokens holds every decode beside it up for 0.4 s."""
    predictor = Predictor(COSTING, Slo(4.0, 0.025))
    demand = demand_of(9, 0, prompt=8000, output=300)
    coupled = {SHARED: (Pool(COUPLED, 8),)}
    assert predictor.latencies(coupled, demand)[TEXT].tpot_s > 0.025
    found = Search(COSTING, OutlookScore(predictor)).best(8, Outlook(demand, {}), None)
    assert found.score < predictor.score(coupled, demand) - 0.2
    assert not any(pool.roles >= PD for form in found.forms.values() for pool in form)


def test_pooling_counts():
    """Half the instances for half the traffic each wait longer than all for all."""
    demand = demand_of(100, 0, prompt=800)
    halves = {group: each.at_rate(50) for group, each in demand.items()}
    whole = PREDICTOR.latencies({SHARED: (Pool(PD, 8),)}, demand)[TEXT]
    half = PREDICTOR.latencies({SHARED: (Pool(PD, 4),)}, halves)[TEXT]
    assert whole.ttft_s <= half.ttft_s


def test_missing_is_a_smooth_step():
    assert missing(0.1) < 0.02
    assert 0.45 < missing(1.0) < 0.6
    assert missing(3.0) > 0.95


@given(st.sampled_from(FORMS), st.floats(1.5, 20))
def test_what_is_too_much_is_predicted_as_lost_where_the_late_yield(forms, times):
    """More than the best rate is lost in proportion, so that forms are told apart in an overload too."""
    predictor = Predictor(COSTING, SLO, late_yields=True)
    demand = demand_of(0, 100)
    one, more = demand, {MEDIA: demand[MEDIA].at_rate(100 * times)}
    assert predictor.latencies(forms, more)[MEDIA].lost > predictor.latencies(forms, one)[MEDIA].lost
    assert predictor.score(forms, more) > predictor.score(forms, one)


def test_a_larger_pool_loses_less_in_an_overload():
    predictor = Predictor(COSTING, SLO, late_yields=True)
    demand = demand_of(0, 150)
    lost = [predictor.latencies({SHARED: (Pool(COUPLED, n),)}, demand)[MEDIA].lost for n in (4, 8, 16, 64)]
    assert lost == sorted(lost, reverse=True)
    assert lost[0] > 0.5
    assert lost[-1] < 0.01


def spread(demand, times):
    """The same work, in prompts whose seconds deviate by so many times their mean."""
    flow = demand[TEXT].prefill
    wide = flow._replace(square_s2=flow.mean_s**2 * (1 + times**2))
    return {TEXT: replace(demand[TEXT], prefill=wide)}


@given(st.sampled_from(FORMS), st.floats(1, 60))
def test_what_takes_longer_than_the_target_by_itself_is_lost_whatever_the_form(form, rate):
    predictor = Predictor(COSTING, Slo(0.06, 0.1), late_yields=True)
    demand = demand_of(rate, 0, prompt=800)
    assert demand[TEXT].prefill_s < 0.06
    even, uneven = (predictor.latencies(form, spread(demand, times))[TEXT].lost for times in (0.01, 1.0))
    assert even < uneven
    assert uneven > 0.1


def test_text_meets_less_of_the_pictures_of_others_where_there_are_more_instances():
    """At equal load of each instance, and a target that leaves text little time to wait."""
    predictor = Predictor(COSTING, Slo(0.05, 0.1, 2.0), late_yields=True)
    lost = [
        predictor.latencies({SHARED: (Pool(COUPLED, n),)}, demand_of(2 * n, 5 * n))[TEXT].lost
        for n in (1, 2, 4, 8, 16)
    ]
    assert lost == sorted(lost, reverse=True)
    assert lost[0] > lost[-1]
