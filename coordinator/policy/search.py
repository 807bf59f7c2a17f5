"""Search over forms of the cluster: co-located or apart, one shared group or two, by predicted score."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from coordinator.policy.costing import Costing
from coordinator.policy.demand import GroupDemand
from coordinator.policy.forms import Form, Forms, Pool, candidates
from coordinator.policy.outlook import Outlook, OutlookScore, stage_work_s
from core.stages import COUPLED, ModalityGroup

_SHARED, _TEXT, _MEDIA = ModalityGroup.SHARED, ModalityGroup.TEXT, ModalityGroup.MULTIMODAL


class Found(NamedTuple):
    """The best forms, and their score (less is better)."""

    forms: Forms
    score: float


class Search:
    """Looks at some tens of forms, whatever the number of instances."""

    def __init__(self, costing: Costing, scores: OutlookScore) -> None:
        self._costing = costing
        self._scores = scores

    def best(
        self, num_instances: int, outlook: Outlook, split: Mapping[ModalityGroup, int] | None, beside: int = 1
    ) -> Found:
        """The best shared form, or the best two groups where a split of the instances is given.

        The coupled form is looked at first and so stands at a tie. Splits up to `beside` instances beside the
        given one are looked at too.
        """
        coupled: Forms = {_SHARED: (Pool(COUPLED, num_instances),)}
        found = Found(coupled, self._scores.score(coupled, outlook))
        for form in self._candidates(num_instances, outlook, is_text=False):
            found = self._better(found, {_SHARED: form}, outlook)
        if split is not None:
            for num_text in range(split[_TEXT] - beside, split[_TEXT] + beside + 1):
                if 1 <= num_text < num_instances and len(outlook.demand) == 2:
                    forms = self.split(num_text, num_instances - num_text, outlook)
                    found = self._better(found, forms, outlook)
        return found

    def split(self, num_text: int, num_multimodal: int, outlook: Outlook) -> Forms:
        """The best form of each of two groups of so many instances."""
        return {
            _TEXT: self._best_of(_TEXT, num_text, outlook),
            _MEDIA: self._best_of(_MEDIA, num_multimodal, outlook),
        }

    def _best_of(self, group: ModalityGroup, count: int, outlook: Outlook) -> Form:
        own = outlook.of_group(group)
        forms = self._candidates(count, own, is_text=group is _TEXT)
        return min(forms, key=lambda form: self._scores.score({group: form}, own))

    def _candidates(self, count: int, outlook: Outlook, *, is_text: bool) -> Iterable[Form]:
        """For the demand at hand and for the burst."""
        found = dict.fromkeys(candidates(count, self._work(outlook.demand.values()), is_text))
        if outlook.burst:
            found |= dict.fromkeys(candidates(count, self._work(outlook.burst.values()), is_text))
        return found

    def _better(self, found: Found, forms: Forms, outlook: Outlook) -> Found:
        score = self._scores.score(forms, outlook)
        return Found(forms, score) if score < found.score else found

    def _work(self, demands: Iterable[GroupDemand]) -> tuple[float, float, float]:
        """Instance-seconds per second of encode, prefill and decode, rounded so that forms repeat."""
        works = [stage_work_s(each, self._costing.model) for each in demands]
        encode, prefill, decode = (sum(each) for each in zip(*works, strict=True)) if works else (0.0,) * 3
        total = encode + prefill + decode or 1.0
        return round(encode / total, 2), round(prefill / total, 2), round(decode / total, 2)
