"""Search over forms of the cluster: co-located or apart, one shared group or two, by predicted score."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from coordinator.policy.costing import Costing
from coordinator.policy.demand import Demand, GroupDemand
from coordinator.policy.forms import Form, Forms, Pool, candidates
from coordinator.policy.prediction import Predictor
from core.stages import COUPLED, ModalityGroup

_SHARED, _TEXT, _MEDIA = ModalityGroup.SHARED, ModalityGroup.TEXT, ModalityGroup.MULTIMODAL


class Found(NamedTuple):
    """The best forms, and their score (less is better)."""

    forms: Forms
    score: float


class Search:
    """Looks at some tens of forms, whatever the number of instances."""

    def __init__(self, costing: Costing, predictor: Predictor) -> None:
        self._costing = costing
        self._predictor = predictor

    def best(
        self, num_instances: int, demand: Demand, split: Mapping[ModalityGroup, int] | None, beside: int = 1
    ) -> Found:
        """The best shared form, or the best two groups where a split of the instances is given.

        The coupled form is looked at first and so stands at a tie. Splits up to `beside` instances beside the
        given one are looked at too.
        """
        coupled: Forms = {_SHARED: (Pool(COUPLED, num_instances),)}
        found = Found(coupled, self._predictor.score(coupled, demand))
        for form in candidates(num_instances, self._work(demand.values()), False):
            found = self._better(found, {_SHARED: form}, demand)
        if split is not None:
            for num_text in range(split[_TEXT] - beside, split[_TEXT] + beside + 1):
                if 1 <= num_text < num_instances and len(demand) == 2:
                    forms = self.split(num_text, num_instances - num_text, demand)
                    found = self._better(found, forms, demand)
        return found

    def split(self, num_text: int, num_multimodal: int, demand: Demand) -> Forms:
        """The best form of each of two groups of so many instances."""
        return {
            _TEXT: self._best_of(_TEXT, num_text, demand),
            _MEDIA: self._best_of(_MEDIA, num_multimodal, demand),
        }

    def _best_of(self, group: ModalityGroup, count: int, demand: Demand) -> Form:
        own = {group: demand[group]} if group in demand else {}
        forms = candidates(count, self._work(own.values()), group is _TEXT)
        return min(forms, key=lambda form: self._predictor.score({group: form}, own))

    def _better(self, found: Found, forms: Forms, demand: Demand) -> Found:
        score = self._predictor.score(forms, demand)
        return Found(forms, score) if score < found.score else found

    def _work(self, demands: Iterable[GroupDemand]) -> tuple[float, float, float]:
        """Instance-seconds per second of encode, prefill and decode, rounded so that forms repeat."""
        encode = prefill = decode = 0.0
        for each in demands:
            encode += each.encode.work
            prefill += each.prefill.work
            outputs = each.rate * each.output_tokens
            decode += self._costing.model.decode_work_s(outputs, int(each.prompt_tokens))
        total = encode + prefill + decode or 1.0
        return round(encode / total, 2), round(prefill / total, 2), round(decode / total, 2)
