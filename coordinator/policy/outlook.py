"""The demand at hand and a burst on top: a form should do for the one and be ready for the other."""

from __future__ import annotations

from typing import NamedTuple

from coordinator.policy.cost_model import CostModel
from coordinator.policy.demand import Demand, GroupDemand
from coordinator.policy.forms import PD, Forms, Pool
from coordinator.policy.prediction import Predictor
from core.stages import COUPLED, ModalityGroup

# A burst that can still be borne is what tells forms apart: one that takes all there is, unless that would be
# more than so many times what comes now.
_MOST_TIMES = 8.0
_BURST_WEIGHT = 0.25  # of its score, beside that of the demand at hand
_AS_FAST = 1.05
_LIGHT = 0.5  # of the instances are taken by the demand at hand, or less


class Outlook(NamedTuple):
    """`burst` is empty where the demand takes all instances anyhow."""

    demand: Demand
    burst: Demand
    is_light: bool = False  # the demand at hand

    def of_group(self, group: ModalityGroup) -> Outlook:
        return Outlook(_only(self.demand, group), _only(self.burst, group), self.is_light)


def outlook_of(demand: Demand, num_instances: int, model: CostModel, *, with_burst: bool = True) -> Outlook:
    """Bursts are of media where there are any, for those come in bursts."""
    if not (demand and with_burst):
        return Outlook(demand, {})
    bursting = ModalityGroup.MULTIMODAL if ModalityGroup.MULTIMODAL in demand else ModalityGroup.TEXT
    work_s = {group: sum(stage_work_s(each, model)) for group, each in demand.items()}
    left_s = num_instances - sum(work_s.values(), 0.0)
    if left_s <= 0 or work_s[bursting] <= 0:
        return Outlook(demand, {})
    times = min(_MOST_TIMES, 1 + left_s / work_s[bursting])
    burst = {**demand, bursting: demand[bursting].at_rate(times * demand[bursting].rate)}
    return Outlook(demand, burst, left_s >= (1 - _LIGHT) * num_instances)


def stage_work_s(demand: GroupDemand, model: CostModel) -> tuple[float, float, float]:
    """Instance-seconds per second of encode, prefill and decode."""
    outputs = demand.rate * demand.output_tokens
    decode = model.decode_work_s(outputs, int(demand.prompt_tokens))
    return demand.encode.work, demand.prefill.work, decode


class OutlookScore:
    """Of forms; less is better.

    To be ready for a burst must cost nothing now: a form that is slower than the coupled one under the demand
    at hand is taken to bear the burst no better than that. Unless it is there and the demand is not light:
    what serves well is not given up for milliseconds shortly before it is needed.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def score(self, forms: Forms, outlook: Outlook, *, is_present: bool = False) -> float:
        score = self._predictor.score(forms, outlook.demand)
        if outlook.burst:
            stays = is_present and not outlook.is_light
            score += _BURST_WEIGHT * self._in_burst(forms, outlook, may_be_slower=stays)
        return score

    def _in_burst(self, forms: Forms, outlook: Outlook, *, may_be_slower: bool) -> float:
        score, coupled = self._predictor.score(forms, outlook.burst), _coupled(forms)
        if may_be_slower or forms == coupled or self._is_as_fast(forms, coupled, outlook.demand):
            return score
        return max(score, self._predictor.score(coupled, outlook.burst))

    def _is_as_fast(self, forms: Forms, coupled: Forms, demand: Demand) -> bool:
        own, other = (self._predictor.latencies(each, demand) for each in (forms, coupled))
        return all(
            own[group].ttft_s <= _AS_FAST * other[group].ttft_s
            and own[group].tpot_s <= _AS_FAST * other[group].tpot_s
            for group in own
        )


def _coupled(forms: Forms) -> Forms:
    """As many instances that play all stages, for all or for the one group that the forms are of."""
    count = sum(pool.size for form in forms.values() for pool in form)
    group = next(iter(forms)) if len(forms) == 1 else ModalityGroup.SHARED
    return {group: (Pool(PD if group is ModalityGroup.TEXT else COUPLED, count),)}


def _only(demand: Demand, group: ModalityGroup) -> Demand:
    return {group: demand[group]} if group in demand else {}
