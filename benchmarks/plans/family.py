"""Every form that a cluster can take: what plans in hindsight are chosen from."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, pairwise

from coordinator.policy.forms import MEDIA_SHARING, TEXT_SHARING, Form, Forms, Pool
from core.stages import COUPLED, ModalityGroup

_SHARED, _TEXT, _MEDIA = ModalityGroup.SHARED, ModalityGroup.TEXT, ModalityGroup.MULTIMODAL


def coupled(num_instances: int) -> Forms:
    return {_SHARED: (Pool(COUPLED, num_instances),)}


def family(num_instances: int) -> tuple[Forms, ...]:
    """One shared group, or text and media apart, in every form of `coordinator.policy.forms` and in all
    sizes; the coupled form first. 309 for eight instances.
    """
    found: list[Forms] = [{_SHARED: form} for form in _forms(num_instances, is_text=False)]
    for num_text in range(1, num_instances):
        for text in _forms(num_text, is_text=True):
            found += [
                {_TEXT: text, _MEDIA: media} for media in _forms(num_instances - num_text, is_text=False)
            ]
    return tuple(found)


def _forms(count: int, *, is_text: bool) -> Iterator[Form]:
    for roles in TEXT_SHARING if is_text else MEDIA_SHARING:
        for sizes in _compositions(count, len(roles)):
            yield tuple(Pool(each, size) for each, size in zip(roles, sizes, strict=True))


def _compositions(count: int, parts: int) -> Iterator[tuple[int, ...]]:
    """All ways to write the count as a sum of so many numbers from 1 on, order counting."""
    for cuts in combinations(range(1, count), parts - 1):
        yield tuple(after - before for before, after in pairwise((0, *cuts, count)))
