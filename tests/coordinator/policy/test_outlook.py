"""The burst that a form should be ready for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.policy.cost_model import CostModel
from coordinator.policy.costing import Costing
from coordinator.policy.forms import EP, D, Pool
from coordinator.policy.outlook import Outlook, OutlookScore, outlook_of, stage_work_s
from coordinator.policy.prediction import Predictor
from coordinator.policy.scheduler import Slo
from coordinator.policy.search import Search
from core.stages import COUPLED, ModalityGroup
from tests.coordinator.policy.cluster import PROFILE
from tests.coordinator.policy.demands import demand_of

SHARED, TEXT, MEDIA = ModalityGroup.SHARED, ModalityGroup.TEXT, ModalityGroup.MULTIMODAL
MODEL = CostModel(PROFILE)
CLUSTER = 8
COUPLED_FORM = {SHARED: (Pool(COUPLED, CLUSTER),)}

rates = st.floats(0.1, 60)


def work_s(demand):
    return sum(sum(stage_work_s(each, MODEL)) for each in demand.values())


@given(rates, rates)
def test_a_burst_of_media_takes_what_is_left_or_is_eight_times_as_much(texts, images):
    demand = demand_of(texts, images)
    burst = outlook_of(demand, CLUSTER, MODEL).burst
    if work_s(demand) >= CLUSTER:
        assert burst == {}
        return
    assert burst[TEXT] is demand[TEXT]
    times = burst[MEDIA].rate / demand[MEDIA].rate
    assert 1 <= times <= 8 + 1e-9
    assert work_s(burst) <= CLUSTER * (1 + 1e-6)
    assert times == pytest.approx(8) or work_s(burst) == pytest.approx(CLUSTER)


def test_without_media_text_bursts():
    demand = demand_of(20, 0)
    assert outlook_of(demand, CLUSTER, MODEL).burst[TEXT].rate > 20


def test_no_burst_is_looked_for_without_demand_or_if_not_wanted():
    demand = demand_of(1, 1)
    assert outlook_of({}, CLUSTER, MODEL) == Outlook({}, {})
    assert outlook_of(demand, CLUSTER, MODEL, with_burst=False) == Outlook(demand, {})


def test_each_group_keeps_its_part_of_the_burst():
    outlook = outlook_of(demand_of(1, 1), CLUSTER, MODEL)
    own = outlook.of_group(MEDIA)
    assert own == Outlook({MEDIA: outlook.demand[MEDIA]}, {MEDIA: outlook.burst[MEDIA]}, is_light=True)
    assert Outlook(demand_of(1, 0), {}).of_group(MEDIA) == Outlook({}, {})


def test_of_forms_that_do_as_well_now_the_one_that_bears_the_burst_is_taken():
    """Decodes that prompts hold up miss their target in the burst, and none does before it."""
    predictor = Predictor(Costing(MODEL), Slo(2.0, 0.022), late_yields=True)
    scores = OutlookScore(predictor)
    demand = demand_of(4, 4)
    apart = {SHARED: (Pool(EP, CLUSTER - 1), Pool(D, 1))}
    assert abs(predictor.score(apart, demand) - predictor.score(COUPLED_FORM, demand)) < 0.05
    outlook = outlook_of(demand, CLUSTER, MODEL)
    assert scores.score(apart, outlook) < scores.score(COUPLED_FORM, outlook) - 0.05
    found = Search(Costing(MODEL), scores).best(CLUSTER, outlook, None)
    assert not any(pool.roles == COUPLED for form in found.forms.values() for pool in form)


def test_what_is_slower_now_is_not_taken_for_the_sake_of_a_burst():
    """Of two instances one alone prefills: text waits longer than it does for either of two."""
    predictor = Predictor(Costing(MODEL), Slo(2.0, 0.022), late_yields=True)
    scores, demand = OutlookScore(predictor), demand_of(2, 1)
    apart, coupled = {SHARED: (Pool(EP, 1), Pool(D, 1))}, {SHARED: (Pool(COUPLED, 2),)}
    outlook = outlook_of(demand, 2, MODEL)
    assert (
        predictor.latencies(apart, demand)[TEXT].ttft_s
        > 1.05 * predictor.latencies(coupled, demand)[TEXT].ttft_s
    )
    assert predictor.score(apart, outlook.burst) < predictor.score(coupled, outlook.burst) - 0.2
    assert scores.score(apart, outlook) > scores.score(coupled, outlook) - 0.05


def test_what_is_there_may_be_slower_unless_the_demand_is_light():
    """Two of eight decode: prompts wait longer for the other six, and decodes are in time in a burst."""
    predictor = Predictor(Costing(MODEL), Slo(0.5, 0.03), late_yields=True)
    scores = OutlookScore(predictor)
    forms = {SHARED: (Pool(EP, CLUSTER - 2), Pool(D, 2))}
    for output, is_light in ((100, True), (400, False)):
        outlook = outlook_of(demand_of(20, 20, output=output), CLUSTER, MODEL)
        assert outlook.is_light is is_light
        now, coupled = (predictor.latencies(each, outlook.demand) for each in (forms, COUPLED_FORM))
        assert any(now[group].ttft_s > 1.05 * coupled[group].ttft_s for group in now)
        assert predictor.score(forms, outlook.burst) < predictor.score(COUPLED_FORM, outlook.burst)
        anew, present = scores.score(forms, outlook), scores.score(forms, outlook, is_present=True)
        own = predictor.score(forms, outlook.demand) + 0.25 * predictor.score(forms, outlook.burst)
        assert present == (anew if is_light else own)
        assert present < anew or is_light


@given(rates, rates)
def test_the_coupled_form_bears_a_burst_as_it_is_predicted(texts, images):
    """It is not weighed against itself."""
    outlook = outlook_of(demand_of(texts, images), CLUSTER, MODEL)
    predictor = Predictor(Costing(MODEL), Slo(1.0, 0.1))
    wanted = predictor.score(COUPLED_FORM, outlook.demand)
    if outlook.burst:
        wanted += 0.25 * predictor.score(COUPLED_FORM, outlook.burst)
    assert OutlookScore(predictor).score(COUPLED_FORM, outlook) == wanted
