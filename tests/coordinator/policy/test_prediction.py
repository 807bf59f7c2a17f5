from coordinator.policy.cost_model import CostModel
from coordinator.policy.costing import Costing
from coordinator.policy.demand import DemandMeter
from coordinator.policy.forms import EP, D, E, P, Pool
from coordinator.policy.prediction import Predictor
from coordinator.policy.scheduler import Slo
from core.costs import chunk_shape
from core.stages import ModalityGroup
from tests.coordinator.policy.cluster import PROFILE, pictures, text

SLO = Slo(0.5, 0.1, 2.0)
APART = {ModalityGroup.SHARED: (Pool(E, 2), Pool(P, 4), Pool(D, 2))}
PAIRED = {ModalityGroup.SHARED: (Pool(EP, 6), Pool(D, 2))}


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
