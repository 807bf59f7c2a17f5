import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.policy.cost_model import CostModel
from coordinator.policy.costing import Costing
from coordinator.policy.demand import DemandMeter
from coordinator.policy.forms import EP, D, E, P, Pool
from coordinator.policy.prediction import Predictor
from coordinator.policy.scheduler import Slo
from core.costs import chunk_shape
from core.stages import ModalityGroup
from tests.coordinator.policy.cluster import PROFILE, pictures, text
from tests.coordinator.policy.demands import demand_of

SLO = Slo(0.5, 0.1, 2.0)
APART = {ModalityGroup.SHARED: (Pool(E, 2), Pool(P, 4), Pool(D, 2))}
PAIRED = {ModalityGroup.SHARED: (Pool(EP, 6), Pool(D, 2))}
TEXT = ModalityGroup.TEXT


class CountingCosting(Costing):
    num_steps = 0

    def decode_step_s(self, sequences, context_tokens):
        self.num_steps += 1
        return super().decode_step_s(sequences, context_tokens)


def demand(rate=4.0):
    meter = DemandMeter(CostModel(PROFILE))
    for work in (text("t"), pictures("m")):
        meter.note_arrival(work, 0.0)
    return {group: each.at_rate(rate) for group, each in meter.demand(0.0).items()}


def test_forms_that_share_a_pool_share_its_prediction():
    costing = CountingCosting(CostModel(PROFILE))
    predictor, now = Predictor(costing, SLO), demand()
    predictor.score(APART, now)
    once = costing.num_steps
    predictor.score(PAIRED, now)
    assert once == costing.num_steps > 0
    predictor.score(PAIRED, demand(5.0))
    assert costing.num_steps == 2 * once


def test_what_is_remembered_equals_what_is_predicted_anew():
    costing, now = Costing(CostModel(PROFILE)), demand(40.0)
    predictor = Predictor(costing, SLO)
    first = [predictor.score(forms, now) for forms in (APART, PAIRED, APART, PAIRED)]
    anew = [Predictor(costing, SLO).score(forms, now) for forms in (APART, PAIRED)]
    assert first == [*anew, *anew]


def test_corrected_costs_make_predictions_anew():
    model, now = CostModel(PROFILE), demand()
    predictor = Predictor(Costing(model), SLO)
    before = predictor.score(APART, now)
    shape = chunk_shape(512)
    model.note_step(shape, 3 * model.step_s(shape))
    assert predictor.score(APART, now) == Predictor(Costing(model), SLO).score(APART, now) > before


def with_decoders(count):
    return {ModalityGroup.SHARED: (Pool(EP, 8 - count), Pool(D, count))}


def lost(forms, demand):
    predictor = Predictor(Costing(CostModel(PROFILE)), SLO, late_yields=True)
    return {group: each.lost for group, each in predictor.latencies(forms, demand).items()}


def test_answers_that_find_no_place_in_a_decode_batch_are_lost():
    """One instance ends 256 answers of 100 tokens in about 1.5 s; prompts are no trouble here."""
    assert lost(with_decoders(1), demand_of(120, 0))[TEXT] < 0.01
    assert lost(with_decoders(1), demand_of(340, 0))[TEXT] == pytest.approx(0.5, abs=0.1)
    assert lost(with_decoders(2), demand_of(340, 0))[TEXT] < 0.1
    assert lost(with_decoders(3), demand_of(340, 0))[TEXT] < 0.01


def test_of_places_only_those_need_some_who_get_so_far():
    """Of 400 pictures a second most are lost before their prompts run: one decode instance has room."""
    demand = demand_of(10, 400)
    assert lost(with_decoders(1), demand)[ModalityGroup.MULTIMODAL] > 0.8
    assert lost(with_decoders(1), demand)[TEXT] < 0.01
    model = Costing(CostModel(PROFILE))
    assert 410 * 100 * model.decode_step_s(256, 256 * 1000) > 256


@given(st.floats(1, 500), st.floats(0.1, 100), st.integers(1, 7))
def test_what_is_lost_is_a_share_and_falls_with_fewer_requests(texts, images, count):
    forms = with_decoders(count)
    most, least = lost(forms, demand_of(texts, images)), lost(forms, demand_of(texts / 2, images / 2))
    for group, each in most.items():
        assert 0 <= least[group] <= each + 1e-9 <= 1 + 1e-9
